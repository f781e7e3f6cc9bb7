-- Whether the WAL is archived. A failure counts until there is a success after it.
select current_setting('archive_mode') <> 'off' as archiving,
       archived_count as archived_total, failed_count as archive_failures_total,
       extract(epoch from clock_timestamp() - last_archived_time)::float8 as last_archived_seconds,
       current_setting('archive_mode') <> 'off'
         and coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) as archive_fails
  from pg_stat_archiver
