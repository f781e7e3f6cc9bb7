-- Audit entries of a record and of a user, the latter for the foreign key.
-- on: audit_logs

create index if not exists idx_audit_logs_record on audit_logs (table_name, record_id, timestamp desc);
create index if not exists idx_audit_logs_user_id on audit_logs (user_id) where user_id is not null;
