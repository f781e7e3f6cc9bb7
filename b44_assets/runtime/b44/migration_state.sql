-- What stays known of the migration once its tables are gone: schema b44 outlives the schemas migration and base44.
-- depends: b44/schema

create table if not exists b44.migration_state (
  only_row boolean primary key default true check (only_row),
  began_at timestamptz not null default now(),
  archive text,
  archived_at timestamptz,
  finished_at timestamptz
);

create table if not exists b44.check_results (
  asset text not null,
  check_name text not null,
  outcome text not null check (outcome in ('passed', 'warning', 'failed')),
  said text not null,
  checked_at timestamptz not null default now(),
  primary key (asset, check_name)
);

create table if not exists b44.view_refreshes (
  view_name text primary key,
  refreshed_at timestamptz not null
);

insert into b44.migration_state default values on conflict (only_row) do nothing;

comment on table b44.migration_state is 'How far the migration of this database has come';
comment on column b44.migration_state.began_at is 'When the program was first used here, as far as is known';
comment on column b44.migration_state.archive is 'The backup that holds the migration tables and the staged export';
comment on column b44.migration_state.archived_at is 'The moment that the archive shows';
comment on column b44.migration_state.finished_at is 'When the schemas migration and base44 were dropped; null before';
comment on table b44.check_results is 'What each check has found last';
comment on column b44.check_results.asset is 'What the check is about';
comment on column b44.check_results.said is 'Its result in one line';
comment on column b44.check_results.checked_at is 'Since when it has found this';
comment on table b44.view_refreshes is 'When each materialized view was filled last; PostgreSQL does not say';
comment on column b44.view_refreshes.view_name is 'The view, as a regclass prints it with schema public on the search path';
comment on column b44.view_refreshes.refreshed_at is 'The beginning of the transaction that filled it';
