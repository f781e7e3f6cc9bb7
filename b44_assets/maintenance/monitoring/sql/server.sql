-- What the server says of itself, and what the role may see.
select current_setting('server_version_num')::int as version,
       current_user::text as role,
       pg_has_role('pg_read_all_stats', 'usage') as monitors,
       pg_has_role('pg_read_all_settings', 'usage') as reads_settings,
       (select coalesce(json_object_agg(e.extname, n.nspname), '{}')
          from pg_extension e
          join pg_namespace n on n.oid = e.extnamespace
         where e.extname <> 'pg_stat_statements'
            or pg_has_role('pg_read_all_settings', 'usage')
           and current_setting('shared_preload_libraries', true) like '%pg_stat_statements%') as extensions,
       case when pg_has_role('pg_read_all_settings', 'usage') then current_setting('data_directory', true) end as data_directory
