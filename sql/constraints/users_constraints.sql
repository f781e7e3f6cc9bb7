-- What every user must be. As in the guide, but: an e-mail address is what the HTML standard calls a valid one and has a dot in its
-- domain (apostrophes, a plus, xn-- domains; mappings/users.sql judges by the same pattern); the guest role of the later of its two definitions; e-mail addresses in
-- lower case, as users_email_key compares them; and no unique_active_email, since users_email_key is unique among all
-- users, active or not.
-- on: users

alter table users add constraint chk_users_email_format
  check (email ~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]+@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+$');
alter table users add constraint chk_users_email_lower check (email = lower(email));
alter table users add constraint chk_users_role_valid check (role in ('admin', 'moderator', 'user', 'guest'));
alter table users add constraint chk_users_finite_times
  check (isfinite(last_login_at) and isfinite(created_at) and isfinite(updated_at));
alter table users add constraint fk_users_created_by foreign key (created_by) references users (id);
alter table users add constraint fk_users_updated_by foreign key (updated_by) references users (id);
