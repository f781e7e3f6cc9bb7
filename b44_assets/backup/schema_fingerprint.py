"""The query that describes every object of a database's schema: its identity, its structure, and its exact text.

The structure is written the same by PostgreSQL 15 to 18, and after a dump was loaded. The exact text adds what may not be:
expressions as the server writes them, owners and privileges. Objects of extensions are the extensions' own. Options that
begin with pg_ a server keeps for itself, as `pg_attver` since November 2026's minor releases, and no dump restores them.
"""

OBJECTS = """\
with
schemas as (
  select n.oid, n.nspname, n.nspowner, n.nspacl
  from pg_namespace n
  where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and (%(schemas)s::text[] is null or n.nspname = any(%(schemas)s)) and n.nspname <> all(%(left_out)s)
    and not exists (
      select from pg_depend d where d.classid = 'pg_namespace'::regclass and d.objid = n.oid and d.deptype = 'e')
),
relations as (
  select c.*, format('%%I.%%I', s.nspname, c.relname) as name
  from pg_class c join schemas s on s.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'm', 'f', 'c', 'S') and c.relpersistence <> 't'
    and not exists (
      select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
),
columns as (
  select
    a.attrelid,
    string_agg(concat_ws(' ',
      quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
      case when a.attnotnull then 'not null' end, case when a.atthasdef then 'default' end,
      nullif(a.attidentity::text, ''), nullif(a.attgenerated::text, ''),
      case when a.attcollation <> t.typcollation then
        (select format('collate %%I.%%I', ns.nspname, co.collname)
         from pg_collation co join pg_namespace ns on ns.oid = co.collnamespace where co.oid = a.attcollation) end,
      quote_literal(col_description(a.attrelid, a.attnum))
    ), ', ' order by a.attnum) as structure,
    string_agg(concat_ws(' ', a.attname, pg_get_expr(d.adbin, d.adrelid), a.attacl::text, a.attstorage, a.attstattarget),
      ', ' order by a.attnum) as exact
  from pg_attribute a
  join relations r on r.oid = a.attrelid
  join pg_type t on t.oid = a.atttypid
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attnum > 0 and not a.attisdropped
  group by a.attrelid
),
routines as (
  select p.*, format('%%I.%%I(%%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) as name, l.lanname
  from pg_proc p join schemas s on s.oid = p.pronamespace join pg_language l on l.oid = p.prolang
  where not exists (
    select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype in ('e', 'i'))
)
select 'schema ' || quote_ident(nspname),
  concat_ws(' ', nullif(obj_description(oid, 'pg_namespace'), '')),
  concat_ws(' ', pg_get_userbyid(nspowner), nspacl::text)
from schemas

union all
select
  case r.relkind when 'v' then 'view ' when 'm' then 'materialized view ' when 'f' then 'foreign table '
    when 'c' then 'type ' else 'table ' end || r.name,
  concat_ws(E'\\n', r.relkind, r.relpersistence, k.structure,
    case when r.relkind = 'p' then pg_get_partkeydef(r.oid) end,
    pg_get_expr(r.relpartbound, r.oid),
    (select string_agg(i.inhparent::regclass::text, ', ' order by i.inhseqno) from pg_inherits i where i.inhrelid = r.oid),
    (select string_agg(o, ', ' order by o) from unnest(r.reloptions) o where o !~ '^pg_'),
    case when r.relrowsecurity then 'row security' end, case when r.relforcerowsecurity then 'forced' end,
    case when r.relkind = 'm' then r.relispopulated::text end,
    quote_literal(obj_description(r.oid, 'pg_class'))),
  concat_ws(E'\\n', k.exact, pg_get_userbyid(r.relowner), r.relacl::text,
    case when r.relkind in ('v', 'm') then pg_get_viewdef(r.oid) end)
from relations r left join columns k on k.attrelid = r.oid
where r.relkind <> 'S'

union all
select 'sequence ' || r.name,
  concat_ws(' ', format_type(q.seqtypid, null), q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle,
    r.relpersistence,
    (select d.refobjid::regclass::text || '.' || quote_ident(a.attname)
     from pg_depend d join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
     where d.classid = 'pg_class'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
       and d.deptype in ('a', 'i')),
    quote_literal(obj_description(r.oid, 'pg_class'))),
  concat_ws(' ', pg_get_userbyid(r.relowner), r.relacl::text)
from relations r join pg_sequence q on q.seqrelid = r.oid

union all
select format('constraint %%I on %%s', c.conname, coalesce(r.name, format('%%I.%%I', s.nspname, t.typname))),
  concat_ws(' ', c.contype, c.condeferrable, c.condeferred, c.convalidated,
    (select string_agg(quote_ident(a.attname), ',' order by case when c.contype = 'c' then 0 else k.place end, a.attname)
     from unnest(c.conkey) with ordinality k (attnum, place)
     join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.attnum),
    case when c.contype = 'f' then concat_ws(' ', c.confrelid::regclass::text, c.confupdtype, c.confdeltype, c.confmatchtype,
      (select string_agg(quote_ident(a.attname), ',' order by k.place)
       from unnest(c.confkey) with ordinality k (attnum, place)
       join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.attnum)) end,
    quote_literal(obj_description(c.oid, 'pg_constraint'))),
  pg_get_constraintdef(c.oid)
from pg_constraint c
left join relations r on r.oid = c.conrelid
left join pg_type t on t.oid = c.contypid
left join schemas s on s.oid = t.typnamespace
where (r.oid is not null or s.oid is not null) and c.contype in ('c', 'f', 'p', 'u', 'x')
  and not (c.contype = 'f' and c.conparentid <> 0)

union all
select format('index %%s', i.indexrelid::regclass),
  concat_ws(' ', r.name, am.amname, i.indisunique, i.indisprimary, i.indisexclusion, i.indnullsnotdistinct, i.indisclustered,
    i.indisreplident, i.indnkeyatts, i.indpred is not null,
    (select string_agg(
        concat_ws(' ', coalesce(quote_ident(a.attname), 'expression'), i.indoption[k.place - 1], o.opcname), ',' order by k.place)
     from unnest(i.indkey::int2[]) with ordinality k (attnum, place)
     left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum and k.attnum <> 0
     left join pg_opclass o on o.oid = i.indclass[k.place - 1]),
    (select string_agg(o, ', ' order by o) from unnest(c.reloptions) o where o !~ '^pg_'),
    quote_literal(obj_description(c.oid, 'pg_class'))),
  concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready, i.indislive)
from pg_index i join relations r on r.oid = i.indrelid join pg_class c on c.oid = i.indexrelid join pg_am am on am.oid = c.relam
where %(physical)s or i.indisvalid or r.relkind = 'p'

union all
select format('trigger %%I on %%s', t.tgname, r.name),
  concat_ws(' ', t.tgfoid::regprocedure, t.tgtype, t.tgenabled, t.tgdeferrable, t.tginitdeferred, t.tgqual is not null,
    t.tgoldtable, t.tgnewtable, encode(t.tgargs, 'hex'),
    (select string_agg(quote_ident(a.attname), ',' order by k.place)
     from unnest(t.tgattr::int2[]) with ordinality k (attnum, place)
     join pg_attribute a on a.attrelid = t.tgrelid and a.attnum = k.attnum),
    quote_literal(obj_description(t.oid, 'pg_trigger'))),
  pg_get_triggerdef(t.oid)
from pg_trigger t join relations r on r.oid = t.tgrelid
where not t.tgisinternal and t.tgparentid = 0

union all
select format('rule %%I on %%s', w.rulename, r.name),
  concat_ws(' ', w.ev_type, w.ev_enabled, w.is_instead, quote_literal(obj_description(w.oid, 'pg_rewrite'))),
  pg_get_ruledef(w.oid)
from pg_rewrite w join relations r on r.oid = w.ev_class
where w.rulename <> '_RETURN'

union all
select format('policy %%I on %%s', p.polname, r.name),
  concat_ws(' ', p.polcmd, p.polpermissive, p.polqual is not null, p.polwithcheck is not null,
    (select string_agg(coalesce(quote_ident(a.rolname), 'public'), ',' order by a.rolname)
     from unnest(p.polroles) k (oid) left join pg_roles a on a.oid = k.oid),
    quote_literal(obj_description(p.oid, 'pg_policy'))),
  concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
from pg_policy p join relations r on r.oid = p.polrelid

union all
select 'function ' || p.name,
  concat_ws(E'\\n', p.prokind, p.lanname, p.provolatile, p.proisstrict, p.prosecdef, p.proleakproof, p.proparallel, p.proretset,
    pg_get_function_result(p.oid), p.pronargdefaults, p.prosrc, p.probin,
    (select string_agg(o, ', ' order by o) from unnest(p.proconfig) o),
    quote_literal(obj_description(p.oid, 'pg_proc'))),
  concat_ws(' ', pg_get_userbyid(p.proowner), p.proacl::text, p.procost, p.prorows, pg_get_function_arguments(p.oid),
    pg_get_function_sqlbody(p.oid))
from routines p

union all
select format('type %%I.%%I', s.nspname, t.typname),
  concat_ws(' ', t.typtype,
    (select string_agg(quote_literal(e.enumlabel), ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
    case when t.typtype = 'd' then
      concat_ws(' ', format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault is not null) end,
    (select format_type(g.rngsubtype, null) from pg_range g where g.rngtypid = t.oid),
    quote_literal(obj_description(t.oid, 'pg_type'))),
  concat_ws(' ', pg_get_userbyid(t.typowner), t.typacl::text, t.typdefault)
from pg_type t join schemas s on s.oid = t.typnamespace
where t.typtype in ('d', 'e', 'r', 'b') and t.typcategory <> 'A'
  and not exists (select from pg_depend d where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e')

union all
select format('statistics %%I.%%I', s.nspname, x.stxname),
  concat_ws(' ', x.stxrelid::regclass, x.stxkind::text,
    (select string_agg(quote_ident(a.attname), ',' order by a.attname)
     from unnest(x.stxkeys::int2[]) k (attnum) join pg_attribute a on a.attrelid = x.stxrelid and a.attnum = k.attnum)),
  pg_get_statisticsobjdef(x.oid)
from pg_statistic_ext x join schemas s on s.oid = x.stxnamespace

union all
select 'extension ' || quote_ident(e.extname), '', e.extversion
from pg_extension e where e.extname <> 'plpgsql'

union all
select 'event trigger ' || quote_ident(e.evtname),
  concat_ws(' ', e.evtevent, e.evtenabled, e.evtfoid::regprocedure, e.evttags::text),
  pg_get_userbyid(e.evtowner)
from pg_event_trigger e
where not exists (select from pg_depend d where d.classid = 'pg_event_trigger'::regclass and d.objid = e.oid and d.deptype = 'e')

union all
select 'publication ' || quote_ident(p.pubname),
  concat_ws(' ', p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
    (select string_agg(k.prrelid::regclass::text, ',' order by k.prrelid::regclass::text)
     from pg_publication_rel k where k.prpubid = p.oid)),
  pg_get_userbyid(p.pubowner)
from pg_publication p
"""
