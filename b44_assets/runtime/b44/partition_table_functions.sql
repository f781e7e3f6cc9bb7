-- Tables that are to become partitions: built, given what the others have, renamed, attached.
-- depends: b44/partition_period_functions, b44/partition_lock_functions, b44/standard_role_functions, b44/grant_functions

-- What an index is, without its name and table.
create or replace function b44.index_form(index_id oid) returns text
language sql stable
set search_path = public, pg_temp
as $$
  select i.indisunique || substr(pg_get_indexdef(i.indexrelid), strpos(pg_get_indexdef(i.indexrelid), ' USING '))
    from pg_index i
   where i.indexrelid = index_id
$$;

-- A table that can become a partition: attaching it needs to build nothing. Foreign keys and triggers come with ATTACH.
create or replace function b44.build_partition(parent text, new_table text, kind text default '') returns regclass
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.partitioning(parent);
  built regclass;
  item record;
begin
  if octet_length(new_table) > 63 then
    raise name_too_long using message = format('the name %s is too long for a table', new_table);
  end if;
  execute format(
    'create table %I.%I (like %s including defaults including generated including storage including compression'
    ' including indexes including comments) %s %s',
    target.schema_name, new_table, target.relation, kind,
    (select format('tablespace %I', s.spcname)
       from pg_class c join pg_tablespace s on s.oid = c.reltablespace where c.oid = target.relation));
  built := format('%I.%I', target.schema_name, new_table)::regclass;
  for item in
    select c.conname, pg_get_constraintdef(c.oid) as definition
      from pg_constraint c
     where c.conrelid = target.relation and c.contype = 'c' and c.convalidated and not c.connoinherit
     order by c.conname
  loop
    execute format('alter table %s add constraint %I %s', built, item.conname, item.definition);
  end loop;
  perform b44.adopt_settings(target.relation, target.default_partition, built);
  return built;
end
$$;

-- A constraint that is not valid yet would be looked through at ATTACH, were it valid here.
create or replace function b44.add_unvalidated_checks(parent regclass, partition regclass) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  item record;
begin
  for item in
    select c.conname, pg_get_constraintdef(c.oid) as definition
      from pg_constraint c
     where c.conrelid = parent and c.contype = 'c' and not c.convalidated and not c.connoinherit
       and not exists (select from pg_constraint p where p.conrelid = partition and p.conname = c.conname)
  loop
    execute format('alter table %s add constraint %I %s', partition, item.conname, item.definition);
  end loop;
end
$$;

-- The trigger of a table for TRUNCATE, as one of its partitions: PostgreSQL does not set off a table's when a partition alone
-- is truncated.
create or replace function b44.truncate_trigger(trigger_id oid, partition regclass) returns text
language sql stable
set search_path = public, pg_temp
as $$
  select format('create trigger %I %s truncate on %s for each statement execute function %s()', g.tgname,
                case when g.tgtype & 2 = 2 then 'before' else 'after' end, partition, g.tgfoid::regproc)
    from pg_trigger g
   where g.oid = trigger_id
$$;

-- Gives it to the partitions that lack it: those of an earlier version, and those that were made by hand. One in use is left
-- to the next call.
create or replace function b44.follow_truncate_triggers(parent regclass) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  patience constant integer := 60;
  caller_lock_timeout constant text := current_setting('lock_timeout');
  caller_deadlock_timeout constant text := current_setting('deadlock_timeout');
  missing constant text := $sql$
    select h.inhrelid::regclass as partition, b44.truncate_trigger(g.oid, h.inhrelid) as statement
      from pg_trigger g
      join pg_inherits h on h.inhparent = g.tgrelid
      join pg_class c on c.oid = h.inhrelid and c.relkind = 'r'
     where g.tgrelid = $1 and not g.tgisinternal and g.tgtype & 33 = 32
       and not exists (select from pg_trigger o where o.tgrelid = h.inhrelid and o.tgname = g.tgname)
  $sql$;
  found_one boolean;
  item record;
begin
  execute format('select exists (%s)', missing) into found_one using parent;
  if not found_one then
    return;
  end if;
  perform b44.lock_partitions(parent);
  for item in execute missing using parent loop
    begin
      perform b44.lock_briefly(array[item.partition], array['share row exclusive'], patience);
      execute item.statement;
    exception
      when lock_not_available or deadlock_detected then
        raise notice '% is in use and gets its trigger for TRUNCATE the next time', item.partition;
    end;
  end loop;
  perform b44.wait_as_before(caller_lock_timeout, caller_deadlock_timeout);
end
$$;

-- What LIKE leaves out: owner, row security, storage settings, targets of statistics, triggers for TRUNCATE. Policies are those of
-- the table, by which rows are read through it; who reads a partition itself, and is not the owner, then sees none.
create or replace function b44.adopt_settings(parent regclass, default_partition regclass, partition regclass) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  item record;
begin
  for item in
    select format('alter table %s owner to %I', partition, pg_get_userbyid(p.relowner)) as statement
      from pg_class p join pg_class t on t.oid = partition
     where p.oid = parent and p.relowner <> t.relowner
    union all
    select format('alter table %s %s row level security', partition, s.switch)
      from pg_class p, lateral (values ('enable', p.relrowsecurity), ('force', p.relforcerowsecurity)) s(switch, is_on)
     where p.oid = parent and s.is_on
    union all
    -- What default privileges gave: rows are read and written through the table.
    select format('revoke all on table %s from %I', partition, g.role_name)
      from b44.group_roles() g join pg_class t on t.oid = partition
     where exists (select from aclexplode(t.relacl) a where a.grantee = g.role_oid and a.grantee <> t.relowner)
    union all
    select format('alter table %s set (%s)', partition,
                  string_agg(o.prefix || format('%I = %L', o.option_name, o.option_value), ', '))
      from (
        select '' as prefix, p.* from pg_class d, pg_options_to_table(d.reloptions) p where d.oid = default_partition
        union all
        select 'toast.', p.* from pg_class d join pg_class s on s.oid = d.reltoastrelid, pg_options_to_table(s.reloptions) p
         where d.oid = default_partition
      ) o
      join pg_class t on t.oid = partition and t.relkind = 'r'
     -- A server's own, which it sets and nobody else may.
     where o.option_name !~ '^pg_'
    having count(*) > 0
    union all
    select format('alter table %s alter column %I set statistics %s', partition, a.attname, a.attstattarget)
      from pg_attribute a
     where a.attrelid = parent and a.attnum > 0 and not a.attisdropped and a.attstattarget >= 0
    union all
    -- What is by row comes with ATTACH.
    select b44.truncate_trigger(g.oid, partition)
      from pg_trigger g
     where g.tgrelid = parent and not g.tgisinternal and g.tgtype & 33 = 32
       and not exists (select from pg_trigger o where o.tgrelid = partition and o.tgname = g.tgname)
    union all
    select format('alter index %s alter column %s set statistics %s', ours.indexrelid::regclass, a.attnum, a.attstattarget)
      from pg_index theirs
      join pg_attribute a on a.attrelid = theirs.indexrelid and a.attnum > 0 and a.attstattarget >= 0
      join pg_index ours on ours.indrelid = partition and ours.indexprs is not null
       and b44.index_form(ours.indexrelid) = b44.index_form(theirs.indexrelid)
     where theirs.indrelid = parent and theirs.indexprs is not null
  loop
    execute item.statement;
  end loop;
end
$$;

-- What a new default partition has to have of the old one.
create or replace function b44.adopt_access(default_partition regclass, successor regclass) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  item record;
begin
  for item in
    select g.statement from b44.grants_of(default_partition, successor::text) g
    union all
    select format('alter table %s replica identity %s', successor, case d.relreplident when 'f' then 'full' else 'nothing' end)
      from pg_class d
     where d.oid = default_partition and d.relreplident in ('f', 'n')
    union all
    select format('comment on table %s is %L', successor, obj_description(default_partition, 'pg_class'))
  loop
    execute item.statement;
  end loop;
end
$$;

-- A partition with the indexes that are named after it.
create or replace function b44.rename_partition(partition regclass, new_name text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  old_name text;
  item record;
begin
  select relname into strict old_name from pg_class where oid = partition;
  execute format('alter table %s rename to %I', partition, new_name);
  for item in
    select n.index_id::regclass as index_id, n.new_index_name
      from (
        select c.oid as index_id, c.relnamespace, new_name || substr(c.relname, length(old_name) + 1) as new_index_name
          from pg_index i join pg_class c on c.oid = i.indexrelid
         where i.indrelid = partition and starts_with(c.relname, old_name)
      ) n
     where octet_length(n.new_index_name) <= 63
       and not exists (
         select from pg_class taken where taken.relnamespace = n.relnamespace and taken.relname = n.new_index_name)
  loop
    execute format('alter index %s rename to %I', item.index_id, item.new_index_name);
  end loop;
end
$$;

-- What hangs on this default partition and not on the table as a whole; null where there is nothing.
create or replace function b44.tied_to(default_partition regclass) returns text
language sql stable
set search_path = public, pg_temp
as $$
  select string_agg(t.what, ', ' order by t.what)
    from (
      select 'view ' || v.oid::regclass as what
        from pg_depend d join pg_rewrite r on r.oid = d.objid join pg_class v on v.oid = r.ev_class
       where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = default_partition
         and r.ev_class <> default_partition
      union
      select 'rule ' || r.rulename from pg_rewrite r where r.ev_class = default_partition
      union
      select 'policy ' || p.polname from pg_policy p where p.polrelid = default_partition
      union
      select 'trigger ' || g.tgname from pg_trigger g
       where g.tgrelid = default_partition and not g.tgisinternal and g.tgparentid = 0 and g.tgname !~ '^b44_drain_'
         and not exists (
           select from pg_inherits h join pg_trigger p on p.tgrelid = h.inhparent
            where h.inhrelid = default_partition and p.tgname = g.tgname and p.tgfoid = g.tgfoid and g.tgtype & 33 = 32)
      union
      select 'constraint ' || c.conname from pg_constraint c
       where c.conrelid = default_partition and c.conparentid = 0 and c.coninhcount = 0 and c.contype not in ('n', 't')
      union
      select format('foreign key %s of %s', c.conname, c.conrelid::regclass) from pg_constraint c
       where c.confrelid = default_partition and c.contype = 'f' and c.conparentid = 0
      union
      select 'index ' || i.indexrelid::regclass from pg_index i
       where i.indrelid = default_partition and not exists (select from pg_inherits h where h.inhrelid = i.indexrelid)
      union
      select 'publication ' || p.pubname from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
       where r.prrelid = default_partition
    ) t
$$;

-- The default partition takes the name of a period, and its successor takes that of the default partition.
create or replace function b44.replace_partition(default_partition regclass, new_name text, successor regclass) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  default_name constant text := (select relname from pg_class where oid = default_partition);
begin
  perform b44.rename_partition(default_partition, new_name);
  perform b44.rename_partition(successor, default_name);
end
$$;

create or replace function b44.describe_partition(
  parent regclass, partition regclass, period text, first_moment timestamptz
) returns void
language plpgsql
set search_path = public, pg_temp
as $$
begin
  execute format('comment on table %s is %L', partition, format('%s of %s (UTC)',
    (select relname from pg_class where oid = parent),
    to_char(first_moment at time zone 'UTC', case period when 'month' then 'YYYY-MM' else 'YYYY' end)));
end
$$;

-- Attaches partitions. The default partition, if it stays, is looked through once, not once for each.
create or replace function b44.attach(
  parent regclass, default_partition regclass, partitions regclass[], firsts timestamptz[], nexts timestamptz[]
) returns void
language plpgsql
set search_path = public, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $$
declare
  target constant record := b44.partitioning(parent::text);
  apart boolean := false;
begin
  if cardinality(partitions) > 1 and default_partition is not null and pg_relation_size(default_partition) > 0 then
    apart := true;
    execute format('alter table %s add constraint b44_apart check (%s)', default_partition, (
      select string_agg('(' || b44.within(target.key_column, target.key_type, f, n, true) || ')', ' and ')
        from unnest(firsts, nexts) as b (f, n)));
  end if;
  for i in 1 .. cardinality(partitions) loop
    perform b44.add_unvalidated_checks(parent, partitions[i]);
    execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, partitions[i], firsts[i], nexts[i]);
    execute format('alter table %s drop constraint if exists b44_bounds', partitions[i]);
  end loop;
  if apart then
    execute format('alter table %s drop constraint b44_apart', default_partition);
  end if;
end
$$;

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.index_form(oid),
  b44.build_partition(text, text, text),
  b44.add_unvalidated_checks(regclass, regclass),
  b44.truncate_trigger(oid, regclass),
  b44.follow_truncate_triggers(regclass),
  b44.adopt_settings(regclass, regclass, regclass),
  b44.adopt_access(regclass, regclass),
  b44.rename_partition(regclass, text),
  b44.tied_to(regclass),
  b44.replace_partition(regclass, text, regclass),
  b44.describe_partition(regclass, regclass, text, timestamptz),
  b44.attach(regclass, regclass, regclass[], timestamptz[], timestamptz[])
from public;
