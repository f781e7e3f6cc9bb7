-- What a user did is seen by that user, all of it by the application itself and by administrators. Entries are added in one's own name.
-- on: audit_logs

alter table audit_logs enable row level security;

drop policy if exists audit_logs_own on audit_logs;
create policy audit_logs_own on audit_logs for select using (user_id = (select b44.acting_user()));

drop policy if exists audit_logs_added on audit_logs;
create policy audit_logs_added on audit_logs for insert with check (user_id = (select b44.acting_user()));

drop policy if exists audit_logs_seen on audit_logs;
create policy audit_logs_seen on audit_logs for select using ((select b44.acts_for_all() or b44.acting_role() = 'admin'));

drop policy if exists audit_logs_of_all on audit_logs;
create policy audit_logs_of_all on audit_logs using ((select b44.acts_for_all()));
