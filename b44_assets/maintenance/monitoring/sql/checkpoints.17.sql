-- Checkpoints, by what they came from, and what they wrote.
select num_timed as timed_total, num_requested as requested_total,
       write_time / 1000 as write_seconds_total, sync_time / 1000 as sync_seconds_total,
       buffers_written as buffers_total,
       extract(epoch from stats_reset)::float8 as counted_since
  from pg_stat_checkpointer
