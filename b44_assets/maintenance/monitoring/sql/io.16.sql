-- Who reads and writes blocks, and why. The WAL, which 18 counts here as well, is measured by itself.
select backend_type as backend, object, context,
       coalesce(reads, 0) as reads_total, coalesce(writes, 0) as writes_total, coalesce(extends, 0) as extends_total,
       coalesce(evictions, 0) as evictions_total, coalesce(fsyncs, 0) as fsyncs_total,
       coalesce(read_time, 0) / 1000 as read_seconds_total, coalesce(write_time, 0) / 1000 as write_seconds_total
  from pg_stat_io
 where object <> 'wal'
 order by coalesce(reads, 0) + coalesce(writes, 0) desc, 1, 2, 3
