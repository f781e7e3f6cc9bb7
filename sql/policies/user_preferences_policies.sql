-- Preferences are seen and changed by the user whose they are, and by the application itself.
-- on: user_preferences

alter table user_preferences enable row level security;

drop policy if exists user_preferences_own on user_preferences;
create policy user_preferences_own on user_preferences using (user_id = (select b44.acting_user()));

drop policy if exists user_preferences_of_all on user_preferences;
create policy user_preferences_of_all on user_preferences using ((select b44.acts_for_all()));
