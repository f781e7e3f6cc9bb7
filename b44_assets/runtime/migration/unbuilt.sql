-- Indexes, constraints and views that rows make impossible, with these rows; gone as soon as they are built.
-- depends: migration/schemas

create table if not exists migration.unbuilt (
  object text primary key,
  relation text not null,
  columns text[] not null,
  reason text not null,
  rows bigint not null,
  examples text[] not null,
  run_id text,
  noted_at timestamptz not null default now()
);

comment on table migration.unbuilt is 'Indexes, constraints and views that rows make impossible';
comment on column migration.unbuilt.relation is 'The table, or the view itself';
comment on column migration.unbuilt.columns is 'What the object reads of the rows';
comment on column migration.unbuilt.reason is 'What the server says';
comment on column migration.unbuilt.rows is 'How many rows are in the way; 0 where that cannot be told';
comment on column migration.unbuilt.examples is 'The first of them';
