-- Rows as they were before a newer export changed them, so that a run can be taken back.
-- depends: migration/schemas

create table if not exists migration.replaced (
  entity text not null,
  id uuid not null,
  batch_number bigint not null,
  created_at timestamptz,
  row_before jsonb not null,
  migrated_before jsonb not null,
  repairs_before jsonb not null,
  unmapped_before jsonb,
  primary key (entity, batch_number, id)
);

-- Earlier versions called it so.
do $$
begin
  if exists (
    select from pg_attribute where attrelid = 'migration.replaced'::regclass and attname = 'books_before' and not attisdropped
  ) then
    alter table migration.replaced rename column books_before to migrated_before;
  end if;
end
$$;

comment on table migration.replaced is 'Rows that a newer export changed, as they were before';
comment on column migration.replaced.created_at is 'Partition key of the row before, where its table has one';
comment on column migration.replaced.migrated_before is 'What migration.migrated said of it';
