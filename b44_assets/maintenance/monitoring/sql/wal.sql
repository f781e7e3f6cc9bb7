-- WAL that was written since it is counted.
select wal_bytes::float8 as bytes_total, wal_records as records_total, wal_fpi as full_pages_total,
       wal_buffers_full as buffers_full_total,
       extract(epoch from stats_reset)::float8 as counted_since
  from pg_stat_wal
