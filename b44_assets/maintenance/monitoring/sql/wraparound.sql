-- How old the oldest transaction id and multixact are that something still needs; at 2,000 million the server takes no writes.
select (select max(age(datfrozenxid)) from pg_database)::bigint as transaction_ids,
       (select max(mxid_age(datminmxid)) from pg_database)::bigint as multixacts,
       (select age(datfrozenxid) from pg_database where datname = current_database())::bigint as transaction_ids_here,
       current_setting('autovacuum_freeze_max_age')::bigint as freeze_max_age,
       (select max(age(backend_xmin)) from pg_stat_activity)::bigint as oldest_snapshot,
       (select max(age(transaction)) from pg_prepared_xacts)::bigint as oldest_prepared,
       (select max(greatest(age(xmin), age(catalog_xmin))) from pg_replication_slots)::bigint as oldest_of_slots
