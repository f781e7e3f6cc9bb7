-- Servers before 16 do not count who reads and writes blocks.
select ''::text as backend, ''::text as object, ''::text as context, 0::bigint as reads_total, 0::bigint as writes_total,
       0::bigint as extends_total, 0::bigint as evictions_total, 0::bigint as fsyncs_total,
       0::float8 as read_seconds_total, 0::float8 as write_seconds_total
 where false
