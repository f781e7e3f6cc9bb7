-- Events of users, at most one a day that is not cancelled.

create table if not exists events (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null,
  title text,
  event_date timestamptz not null,
  cancelled boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  created_by uuid not null,
  updated_by uuid
);

comment on table events is 'Events of users, at most one a day that is not cancelled';
comment on column events.id is 'Identifier; made from the Base44 id for migrated events';
comment on column events.user_id is 'Whose event it is';
comment on column events.title is 'Title';
comment on column events.event_date is 'When it takes place; its day in UTC counts for uniqueness';
comment on column events.cancelled is 'Whether it was called off';
comment on column events.created_at is 'When the record was made';
comment on column events.updated_at is 'When the record last changed';
comment on column events.created_by is 'Who made it; the system user where that is unknown';
comment on column events.updated_by is 'Who last changed it';
