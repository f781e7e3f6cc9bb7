-- Whose session it is; it goes with the user. Ours: the guide has no foreign key here.
-- on: user_sessions
-- depends: users

alter table user_sessions add constraint chk_user_sessions_finite_times
  check (isfinite(created_at) and isfinite(expires_at));
alter table user_sessions add constraint fk_user_sessions_user_id
  foreign key (user_id) references users (id) on delete cascade;
