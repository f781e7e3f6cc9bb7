-- Files of the WAL on the server's disk, and those that wait for being archived.
select count(*) as files, coalesce(sum(size), 0)::float8 as files_bytes,
       (select count(*) from pg_ls_archive_statusdir() where name like '%.ready') as archive_waiting
  from pg_ls_waldir()
