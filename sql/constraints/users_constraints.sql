-- What every user must be. An e-mail address is what the HTML standard calls a valid one and has a dot in its
-- domain (apostrophes, a plus, xn-- domains; mappings/users.sql judges by the same pattern); e-mail addresses in
-- lower case, as users_email_key compares them; and no unique_active_email, since users_email_key is unique among all
-- users, active or not.
-- on: users

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'users'::regclass and conname = 'chk_users_email_format') then
    alter table users add constraint chk_users_email_format
      check (email ~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]+@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+$');
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'users'::regclass and conname = 'chk_users_email_lower') then
    alter table users add constraint chk_users_email_lower check (email = lower(email));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'users'::regclass and conname = 'chk_users_role_valid') then
    alter table users add constraint chk_users_role_valid check (role in ('admin', 'moderator', 'user', 'guest'));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'users'::regclass and conname = 'chk_users_finite_times') then
    alter table users add constraint chk_users_finite_times
      check (isfinite(last_login_at) and isfinite(created_at) and isfinite(updated_at));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'users'::regclass and conname = 'fk_users_created_by') then
    alter table users add constraint fk_users_created_by foreign key (created_by) references users (id);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'users'::regclass and conname = 'fk_users_updated_by') then
    alter table users add constraint fk_users_updated_by foreign key (updated_by) references users (id);
  end if;
end $$;
