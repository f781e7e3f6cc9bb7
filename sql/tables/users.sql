-- User accounts and profiles.
-- audited: yes
-- seed: id = '00000000-0000-8000-8000-000000000b44'

create table if not exists users (
  id uuid primary key default gen_random_uuid(),
  email text not null unique,
  username text unique,
  display_name text,
  avatar_url text,
  role text not null default 'user',
  email_verified boolean not null default false,
  active boolean not null default true,
  last_login_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  created_by uuid,
  updated_by uuid
);

comment on table users is 'User accounts and profiles';
comment on column users.id is 'Identifier; made from the Base44 id for migrated users';
comment on column users.email is 'E-mail address, lower case, unique among all users';
comment on column users.username is 'Public name, lower case, unique';
comment on column users.display_name is 'Full name';
comment on column users.avatar_url is 'Picture, http or https';
comment on column users.role is 'User role for authorization: admin, moderator, user, guest';
comment on column users.email_verified is 'Whether the e-mail address was confirmed';
comment on column users.active is 'Whether the account may be used';
comment on column users.last_login_at is 'Last sign-in';
comment on column users.created_at is 'When the record was made';
comment on column users.updated_at is 'When the record last changed';
comment on column users.created_by is 'Who made it';
comment on column users.updated_by is 'Who last changed it';

-- Stands in where a creator must be named and is unknown; no count includes it.
insert into users (id, email, username, display_name, active, created_at, updated_at)
values ('00000000-0000-8000-8000-000000000b44', 'system@base44.invalid', null, 'System', false, 'epoch', 'epoch')
on conflict do nothing;
