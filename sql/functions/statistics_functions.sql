-- Keeps the statistics of users fresh. It fills a view that was never filled (CONCURRENTLY cannot),
-- waits for a refresh under way, and notes in b44.view_refreshes when it was done, which PostgreSQL does not.
-- execute: b44_readwrite

create or replace function refresh_user_stats() returns void
language plpgsql security definer
-- Readers go on meanwhile, so a long wait harms nobody.
set lock_timeout = '10min'
-- With it, REFRESH ... CONCURRENTLY names its own working table in a form that it cannot read.
set quote_all_identifiers = off
set search_path = public, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('refresh user_post_stats', 44));
  if (select c.relispopulated from pg_catalog.pg_class c where c.oid = 'user_post_stats'::regclass) then
    refresh materialized view concurrently user_post_stats;
  else
    refresh materialized view user_post_stats;
  end if;
  perform b44.note_refresh('user_post_stats');
end
$$;

comment on function refresh_user_stats() is 'Brings user_post_stats up to date without keeping its readers waiting';

-- For the owner of the tables, who needs no grant, and for members of b44_readwrite.
revoke all on routine
  refresh_user_stats()
from public;
