-- Changes of categories are noted in audit_logs, but for those of the migration.
-- on: categories
-- depends: audit_logs

create or replace trigger trg_categories_audit_insert after insert on categories
  referencing new table as added
  for each statement when (not b44.migrating('categories'))
  execute function b44.audit('id', 'audit_logs');

create or replace trigger trg_categories_audit_update after update on categories
  referencing old table as removed new table as added
  for each statement when (not b44.migrating('categories'))
  execute function b44.audit('id', 'audit_logs');

create or replace trigger trg_categories_audit_delete after delete on categories
  referencing old table as removed
  for each statement when (not b44.migrating('categories'))
  execute function b44.audit('id', 'audit_logs');
