-- What was staged, and from which file: one row for each entity, replaced when a newer export is staged.
-- depends: migration/schemas

create table if not exists migration.exports (
  entity text primary key,
  source_entity text not null,
  source_file text,
  dialect text not null,
  bytes bigint not null,
  digest text not null,
  exported_at timestamptz not null,
  fields text[] not null,
  records bigint not null,
  refused bigint not null,
  oddities jsonb not null default '{}',
  generation bigint not null generated always as identity,
  run_id text,
  staged_at timestamptz not null default now()
);

alter table migration.exports add column if not exists cleaning text;

-- Records that could not be split into cells or hold text that PostgreSQL cannot: they never reach base44.*.
create table if not exists migration.refused (
  entity text not null references migration.exports (entity) on delete cascade,
  record_number bigint not null,
  reason text not null,
  record jsonb not null,
  primary key (entity, record_number)
);

-- Records that are not the one to migrate among several of one id: equal in every field, or an older version.
create table if not exists migration.versions (
  entity text not null,
  record_number bigint not null,
  repeated boolean not null,
  primary key (entity, record_number)
);

-- Names of version 0.1. A plan under its old name goes: the functions that are made for it have that name in them.
do $$
declare
  old_plan regclass;
begin
  if to_regclass('migration.settlements') is not null and to_regclass('migration.plans') is null then
    alter table migration.settlements rename to plans;
    alter table migration.plans rename column settled_at to planned_at;
    alter table migration.plans rename constraint settlements_pkey to plans_pkey;
    alter sequence migration.settlements_generation_seq rename to plans_generation_seq;
    for old_plan in
      select c.oid
        from pg_class c
        join migration.plans p on c.relname = p.entity || '_settled'
       where c.relnamespace = 'migration'::regnamespace and c.relkind = 'r'
    loop
      execute format('drop table %s', old_plan);
    end loop;
  end if;
end
$$;

-- What the mapping made of a staged export: the sum that each batch then works off.
create table if not exists migration.plans (
  entity text primary key,
  generation bigint not null generated always as identity,
  fingerprint text not null,
  read bigint not null,
  deduplicated bigint not null,
  quarantined bigint not null,
  unchanged bigint not null,
  to_migrate bigint not null,
  vanished bigint not null default 0,
  contested bigint not null default 0,
  run_id text,
  planned_at timestamptz not null default now()
);

alter table migration.plans add column if not exists made_of text;
alter table migration.plans add column if not exists reads text[] not null default '{}';

-- The partitions of what is to be migrated: which positions of the plan each has.
create table if not exists migration.parts (
  entity text not null,
  partition_key date,
  unit text,
  first_position bigint,
  last_position bigint,
  records bigint not null,
  unique nulls not distinct (entity, partition_key)
);

comment on table migration.exports is 'The staged export of each entity';
comment on column migration.exports.entity is 'The target table';
comment on column migration.exports.source_entity is 'The entity as Base44 names it';
comment on column migration.exports.source_file is 'Name of the file; null where the export has none';
comment on column migration.exports.dialect is 'How the file was read; absent where there is none';
comment on column migration.exports.digest is 'SHA-256 of the file';
comment on column migration.exports.exported_at is 'The export''s time: the file''s modification time';
comment on column migration.exports.fields is 'Exported fields in the order of the file';
comment on column migration.exports.records is 'Records in the file, refused ones included';
comment on column migration.exports.refused is 'Records that could not be staged';
comment on column migration.exports.cleaning is 'By which rules HTML was cleaned; null where no field is HTML';
comment on table migration.refused is 'Records that could not be staged, as they came';
comment on table migration.versions is 'Records passed over for another of the same id';
comment on table migration.plans is 'What becomes of the staged records of each entity, in numbers';
comment on column migration.plans.fingerprint is 'Digest of the export, the mapping and what it reads: the same fingerprint gives the same result';
comment on column migration.plans.made_of is 'The part of it that does not change while records are migrated';
comment on column migration.plans.reads is 'The migrated tables that the mapping reads';
comment on column migration.plans.unchanged is 'Records that were migrated before and are the same';
comment on column migration.plans.to_migrate is 'Records to insert or to update';
comment on column migration.plans.vanished is 'Records migrated before that this export has no more; their rows stay';
comment on column migration.plans.contested is 'Updates up to this position exchange unique values, and are one batch';
comment on table migration.parts is 'What is to be migrated, by partition';
comment on column migration.parts.unit is 'month or year; null for a table without periods';
comment on column migration.parts.records is 'Records of the export that belong in the partition, refused ones left out';
