-- Preferences by what stands in the document, as in the guide.
-- on: user_preferences

create index if not exists idx_user_preferences_gin on user_preferences using gin (preferences);
