-- Whose session it is; it goes with the user.
-- on: user_sessions
-- depends: users

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'user_sessions'::regclass and conname = 'chk_user_sessions_finite_times') then
    alter table user_sessions add constraint chk_user_sessions_finite_times
      check (isfinite(created_at) and isfinite(expires_at));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'user_sessions'::regclass and conname = 'fk_user_sessions_user_id') then
    alter table user_sessions add constraint fk_user_sessions_user_id
      foreign key (user_id) references users (id) on delete cascade;
  end if;
end $$;
