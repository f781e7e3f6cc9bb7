-- Keeps the statistics of users fresh. As in the guide, but it fills a view that was never filled (CONCURRENTLY cannot),
-- waits for a refresh under way, and notes in b44.view_refreshes when it was done, which PostgreSQL does not.

create or replace function refresh_user_stats() returns void
language plpgsql
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
  perform base44_note_refresh('user_post_stats');
end
$$;

-- The start of the transaction, since a refresh shows what was there then or a little later. Nothing where the program was never used.
create or replace function base44_note_refresh(view regclass) returns void
language plpgsql
set search_path = public, pg_temp
as $$
begin
  if to_regnamespace('b44') is null or not has_schema_privilege('b44', 'usage') or to_regclass('b44.view_refreshes') is null then
    return;
  end if;
  if not has_table_privilege('b44.view_refreshes', 'select') or not has_table_privilege('b44.view_refreshes', 'insert')
      or not has_table_privilege('b44.view_refreshes', 'update') then
    raise warning '% was refreshed, but % may not note it', view, current_user
      using hint = format('grant select, insert, update on b44.view_refreshes to %I', current_user);
    return;
  end if;
  insert into b44.view_refreshes as r (view_name, refreshed_at) values (view::text, now())
  on conflict (view_name) do update set refreshed_at = greatest(r.refreshed_at, excluded.refreshed_at);
end
$$;

comment on function refresh_user_stats() is 'Brings user_post_stats up to date without keeping its readers waiting';
comment on function base44_note_refresh(regclass) is 'Notes that a materialized view shows what is there now';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  refresh_user_stats(),
  base44_note_refresh(regclass)
from public;
