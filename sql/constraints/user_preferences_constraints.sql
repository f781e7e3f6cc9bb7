-- Whose preferences these are; they go with the user.
-- on: user_preferences
-- depends: users

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'user_preferences'::regclass and conname = 'chk_user_preferences_finite_times') then
    alter table user_preferences add constraint chk_user_preferences_finite_times
      check (isfinite(created_at) and isfinite(updated_at));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'user_preferences'::regclass and conname = 'fk_user_preferences_user_id') then
    alter table user_preferences add constraint fk_user_preferences_user_id
      foreign key (user_id) references users (id) on delete cascade;
  end if;
end $$;
