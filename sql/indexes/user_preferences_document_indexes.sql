-- Preferences by what stands in the document.
-- on: user_preferences

create index if not exists idx_user_preferences_gin on user_preferences using gin (preferences);
