-- The server's version, and since when it runs.
select current_setting('server_version_num')::int / 10000 as major, current_setting('server_version_num')::int % 10000 as minor,
       extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8 as up_seconds
