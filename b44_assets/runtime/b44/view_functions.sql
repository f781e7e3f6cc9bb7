-- Notes when a materialized view was filled, which PostgreSQL does not.
-- depends: b44/upgrade_from_0_1, b44/migration_state

-- The start of the transaction, since a refresh shows what was there then or a little later. Nothing where the program was never used.
create or replace function b44.note_refresh(view regclass) returns void
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

comment on function b44.note_refresh(regclass) is 'Notes that a materialized view shows what is there now';

-- For the owner of the view, who needs no grant, and for whom the owner lets.
revoke all on routine b44.note_refresh(regclass) from public;
