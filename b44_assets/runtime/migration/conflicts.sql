-- Rows that a newer export would have changed and that the migration left alone.
-- depends: migration/schemas

create table if not exists migration.conflicts (
  entity text not null,
  id uuid not null,
  base44_id text,
  kind text not null check (kind in ('edited', 'deleted', 'not_newer')),
  columns text[] not null default '{}',
  record jsonb,
  record_number bigint,
  generation bigint not null,
  run_id text,
  noted_at timestamptz not null default now(),
  accepted_at timestamptz,
  primary key (entity, id)
);

-- Rows whose record the newest export does not have, or has in a form that is refused: they stay as they are.
create table if not exists migration.retained (
  entity text not null,
  id uuid not null,
  base44_id text not null,
  reason text not null check (reason in ('vanished', 'refused')),
  generation bigint not null,
  noted_at timestamptz not null default now(),
  primary key (entity, id)
);

comment on table migration.conflicts is 'Rows edited or deleted in the new system that a newer export would change: they are left alone';
comment on column migration.conflicts.kind is
  'edited or deleted in the new system; not_newer: the record differs, but its updated_at is no newer than what was migrated';
comment on column migration.conflicts.columns is 'Where row and record differ';
comment on column migration.conflicts.record is 'The record as exported';
comment on column migration.conflicts.accepted_at is 'Set this where the row is right as it is; the conflict is not reported any more';
comment on table migration.retained is 'Rows of records that have vanished from the export, or are refused now';
comment on column migration.retained.reason is 'vanished: no such record any more; refused: it is in quarantine, in its newer form';
