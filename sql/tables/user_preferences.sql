-- Preferences of users, one document each.

create table if not exists user_preferences (
  user_id uuid primary key,
  preferences jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

comment on table user_preferences is 'Preferences of users, one document each';
comment on column user_preferences.user_id is 'Whose preferences these are';
comment on column user_preferences.preferences is 'Setting to value';
comment on column user_preferences.created_at is 'When the record was made';
comment on column user_preferences.updated_at is 'When the record last changed';
