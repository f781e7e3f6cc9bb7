-- Whose preferences these are; they go with the user. Ours: the guide has the table's name only.
-- on: user_preferences
-- depends: users

alter table user_preferences add constraint chk_user_preferences_finite_times
  check (isfinite(created_at) and isfinite(updated_at));
alter table user_preferences add constraint fk_user_preferences_user_id
  foreign key (user_id) references users (id) on delete cascade;
