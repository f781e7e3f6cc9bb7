-- Accounts are seen by whom they are of, and changed by the application itself and by administrators: no user gives a role to himself.
-- Names are everybody's, through user_names.
-- on: users

alter table users enable row level security;

drop policy if exists users_own on users;
create policy users_own on users for select using (id = (select b44.acting_user()));

drop policy if exists users_of_all on users;
create policy users_of_all on users using ((select b44.acts_for_all() or b44.acting_role() = 'admin'));
