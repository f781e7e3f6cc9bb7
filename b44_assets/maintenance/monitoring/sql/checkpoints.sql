-- Checkpoints, by what they came from, and what they wrote.
select checkpoints_timed as timed_total, checkpoints_req as requested_total,
       checkpoint_write_time / 1000 as write_seconds_total, checkpoint_sync_time / 1000 as sync_seconds_total,
       buffers_checkpoint as buffers_total,
       extract(epoch from stats_reset)::float8 as counted_since
  from pg_stat_bgwriter
