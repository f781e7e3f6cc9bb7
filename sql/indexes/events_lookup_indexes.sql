-- Events of a user by date, and by who made or changed them, for the foreign keys.
-- unique_event_per_day knows only events that are not cancelled.
-- on: events

create index if not exists idx_events_user_date on events (user_id, event_date desc);
create index if not exists idx_events_created_by on events (created_by);
create index if not exists idx_events_updated_by on events (updated_by) where updated_by is not null;
