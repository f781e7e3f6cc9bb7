-- Who buys.
-- seed: id = 'ffffffff-ffff-8fff-8fff-ffffffffffff'

create table if not exists customers (
  id uuid primary key default gen_random_uuid(),
  email text not null unique,
  handle text not null unique,
  full_name text,
  points integer not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

comment on table customers is 'Who buys';
comment on column customers.id is 'Identifier; made from the Base44 id for migrated customers';
comment on column customers.email is 'E-mail address, lower case, unique';
comment on column customers.handle is 'Short name, lower case, unique';
comment on column customers.full_name is 'Full name';
comment on column customers.points is 'Points collected, 0 or more';
comment on column customers.created_at is 'When the account was opened';
comment on column customers.updated_at is 'When the account last changed';

-- Who pays at the counter and leaves no name.
insert into customers (id, email, handle, full_name, created_at, updated_at)
values ('ffffffff-ffff-8fff-8fff-ffffffffffff', 'counter@shop.invalid', 'counter', 'Counter', 'epoch', 'epoch')
on conflict do nothing;
