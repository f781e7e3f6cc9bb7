-- The tables whose rows were frozen longest ago.
select c.oid::regclass::text as "table", age(c.relfrozenxid)::bigint as transaction_ids, mxid_age(c.relminmxid)::bigint as multixacts
  from pg_class c
 where c.relkind in ('r', 'm', 't') and c.relfrozenxid <> '0'::xid
 order by 2 desc, 1
 limit 20
