-- Sessions of a user, for the foreign key, and those that have ended.
-- on: user_sessions

create index if not exists idx_user_sessions_user_id on user_sessions (user_id);
create index if not exists idx_user_sessions_expires_at on user_sessions (expires_at);
