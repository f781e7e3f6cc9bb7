-- Sessions are seen and changed by the user whose they are, and by the application itself.
-- on: user_sessions

alter table user_sessions enable row level security;

drop policy if exists user_sessions_own on user_sessions;
create policy user_sessions_own on user_sessions using (user_id = (select b44.acting_user()));

drop policy if exists user_sessions_of_all on user_sessions;
create policy user_sessions_of_all on user_sessions using ((select b44.acts_for_all()));
