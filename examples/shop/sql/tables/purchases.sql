-- What was bought when, a partition for each month (UTC) of purchased_at.
-- partitions: month of purchased_at
-- first: 2025-11

create table if not exists purchases (
  id uuid not null default gen_random_uuid(),
  customer_id uuid not null,
  total_cents integer not null,
  stage text not null default 'open',
  purchased_at timestamptz not null default now(),
  primary key (id, purchased_at)
) partition by range (purchased_at);

create table if not exists purchases_default partition of purchases default;

comment on table purchases is 'What was bought when';
comment on column purchases.id is 'Identifier; made from the Base44 id for migrated purchases';
comment on column purchases.customer_id is 'Who bought it';
comment on column purchases.total_cents is 'What was paid, in cents';
comment on column purchases.stage is 'open, paid, shipped or returned';
comment on column purchases.purchased_at is 'When; decides the partition';
