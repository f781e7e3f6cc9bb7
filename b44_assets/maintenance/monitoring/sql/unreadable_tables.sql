-- Tables of some size whose statistics are not shown to the role.
select count(*) as tables_hidden
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
   and c.relpages >= 16 * 1024 * 1024 / current_setting('block_size')::int
   and not has_table_privilege(c.oid, 'select')
