-- Categories of posts.
-- audited: yes

create table if not exists categories (
  id uuid primary key default gen_random_uuid(),
  name text not null unique,
  slug text not null unique,
  description text,
  color text,
  sort_order integer not null default 0,
  active boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  created_by uuid not null,
  updated_by uuid
);

comment on table categories is 'Categories of posts';
comment on column categories.id is 'Identifier; made from the Base44 id for migrated categories';
comment on column categories.name is 'Name, unique';
comment on column categories.slug is 'Name as a part of a web address, unique';
comment on column categories.description is 'What belongs in it';
comment on column categories.color is 'Colour as #rrggbb';
comment on column categories.sort_order is 'Place in lists, ascending';
comment on column categories.active is 'Whether it is offered for new posts';
comment on column categories.created_at is 'When the record was made';
comment on column categories.updated_at is 'When the record last changed';
comment on column categories.created_by is 'Who made it; the system user where that is unknown';
comment on column categories.updated_by is 'Who last changed it';
