-- A partition of audit_logs for each year (UTC), from the earliest there is to the next year.
-- on: audit_logs
-- depends: partition_functions, drain_functions
-- ahead: 1

select base44_manage_partitions('audit_logs', 'year', 1);
