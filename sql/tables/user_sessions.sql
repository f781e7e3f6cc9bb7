-- Sign-in sessions, spread over partitions by user (user_sessions_partitions).

create table if not exists user_sessions (
  id uuid not null default gen_random_uuid(),
  user_id uuid not null,
  session_data jsonb,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (id, user_id)
) partition by hash (user_id);

comment on table user_sessions is 'Sign-in sessions';
comment on column user_sessions.id is 'Identifier; made from the Base44 id for migrated sessions';
comment on column user_sessions.user_id is 'Whose session it is; decides the partition';
comment on column user_sessions.session_data is 'What the session remembers';
comment on column user_sessions.created_at is 'When it began';
comment on column user_sessions.expires_at is 'When it ends';
