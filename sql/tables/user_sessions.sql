-- Sign-in sessions, spread over four partitions by user.

create table if not exists user_sessions (
  id uuid not null default gen_random_uuid(),
  user_id uuid not null,
  session_data jsonb,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (id, user_id)
) partition by hash (user_id);

create table if not exists user_sessions_0 partition of user_sessions for values with (modulus 4, remainder 0);
create table if not exists user_sessions_1 partition of user_sessions for values with (modulus 4, remainder 1);
create table if not exists user_sessions_2 partition of user_sessions for values with (modulus 4, remainder 2);
create table if not exists user_sessions_3 partition of user_sessions for values with (modulus 4, remainder 3);

comment on table user_sessions is 'Sign-in sessions';
comment on column user_sessions.id is 'Identifier; made from the Base44 id for migrated sessions';
comment on column user_sessions.user_id is 'Whose session it is; decides the partition';
comment on column user_sessions.session_data is 'What the session remembers';
comment on column user_sessions.created_at is 'When it began';
comment on column user_sessions.expires_at is 'When it ends';
