-- A partition of audit_logs for each year (UTC), from the earliest there is to the next year.
-- on: audit_logs
-- ahead: 1

select b44.manage_partitions('audit_logs', 'year', 1);
