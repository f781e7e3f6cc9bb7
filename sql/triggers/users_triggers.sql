-- Changes of accounts are noted in audit_logs, but for those of the migration.
-- on: users
-- depends: audit_logs

create or replace trigger trg_users_audit_insert after insert on users
  referencing new table as added
  for each statement when (not b44.migrating('users'))
  execute function b44.audit('id', 'audit_logs');

create or replace trigger trg_users_audit_update after update on users
  referencing old table as removed new table as added
  for each statement when (not b44.migrating('users'))
  execute function b44.audit('id', 'audit_logs');

create or replace trigger trg_users_audit_delete after delete on users
  referencing old table as removed
  for each statement when (not b44.migrating('users'))
  execute function b44.audit('id', 'audit_logs');
