-- Folders outside of the data directory that hold tables.
select spcname::text as tablespace, pg_tablespace_location(oid) as location
  from pg_tablespace
 where spcname not in ('pg_default', 'pg_global')
 order by 1
