-- Partitions by month or year (UTC): made ahead or on demand, with the rows that already lie in the default partition; detached.
-- depends: b44/upgrade_from_0_1

-- What is to be known of a table partitioned by a range of time: its name is given plainly, or as a regclass prints it.
create or replace function b44.partitioning(
  parent text, out relation regclass, out schema_name name, out table_name name, out key_column name, out key_type regtype, out default_partition regclass
)
language plpgsql stable
set search_path = public, pg_temp
as $$
begin
  relation := coalesce(to_regclass(quote_ident(parent)), to_regclass(parent));
  if relation is null then
    raise undefined_table using message = format('there is no table %s', parent);
  end if;
  select n.nspname, c.relname, a.attname, a.atttypid::regtype, nullif(p.partdefid, 0)::regclass
    into schema_name, table_name, key_column, key_type, default_partition
    from pg_partitioned_table p
    join pg_class c on c.oid = p.partrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
   where p.partrelid = relation and p.partstrat = 'r' and p.partnatts = 1
     and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype);
  if not found then
    raise wrong_object_type using message = format('%s is not partitioned by a range of one column of time', parent);
  end if;
end
$$;

-- The month or year (UTC) that a day lies in, and what its partition is called after the table.
create or replace function b44.period(
  period text, day date, out first_moment timestamptz, out next_moment timestamptz, out suffix text
)
language plpgsql immutable
set search_path = public, pg_temp
as $$
declare
  first_day timestamp;
begin
  if period is null or period not in ('month', 'year') then
    raise invalid_parameter_value using message = format('a period is month or year, not %L', period);
  elsif day is null or day < '0001-01-01' or day > '9999-12-31' then
    -- Years of other than four digits have no name, and what comes after the last ones no date.
    raise invalid_parameter_value using message = format('there is no %s of %L', period, day);
  end if;
  first_day := date_trunc(period, day::timestamp);
  first_moment := first_day at time zone 'UTC';
  next_moment := (first_day + ('1 ' || period)::interval) at time zone 'UTC';
  suffix := to_char(first_day, case period when 'month' then '_YYYY_MM' else '_YYYY' end);
end
$$;

-- Ranges of the partitions. A range of dates or of time without zone is taken as UTC.
create or replace function b44.partition_bounds(
  parent regclass
) returns table(partition regclass, first_moment timestamptz, next_moment timestamptz)
language sql stable
set search_path = public, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $$
  select b.partition,
         case b.ends[1] when 'MINVALUE' then '-infinity' else trim(both '''' from b.ends[1])::timestamptz end,
         case b.ends[2] when 'MAXVALUE' then 'infinity' else trim(both '''' from b.ends[2])::timestamptz end
    from (
      select c.oid::regclass as partition,
             regexp_match(pg_get_expr(c.relpartbound, c.oid), E'^FOR VALUES FROM \\((.*)\\) TO \\((.*)\\)$') as ends
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
       where i.inhparent = parent and not i.inhdetachpending
    ) b
   where b.ends is not null
$$;

-- A condition that a row lies within a period; or outside of it.
create or replace function b44.within(
  key_column name, key_type regtype, first_moment timestamptz, next_moment timestamptz, outside boolean default false
) returns text
language sql stable
set search_path = public, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $$
  select case
    when outside then concat_ws(' or ',
      case when isfinite(first_moment) then format('%I < %L::%s', key_column, first_moment, key_type) end,
      case when isfinite(next_moment) then format('%I >= %L::%s', key_column, next_moment, key_type) end)
    else format('%I >= %L::%s and %I < %L::%s', key_column, first_moment, key_type, key_column, next_moment, key_type)
  end
$$;

-- One at a time changes the partitions of a table. The table's own lock, which keeps nobody out, lets this session see what
-- the one before it did to the catalogue.
create or replace function b44.lock_partitions(relation regclass) returns void
language plpgsql
set search_path = public, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('b44 partitions', relation::oid::bigint));
  execute format('lock table only %s in access share mode', relation);
end
$$;

-- Locks tables one after the other, all within `patience` milliseconds: others wait for at most that long.
create or replace function b44.lock_briefly(relations regclass[], modes text[], patience integer) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  deadline constant timestamptz := clock_timestamp() + patience * interval '1 millisecond';
  holders text;
begin
  begin
    -- Sends an autovacuum away, and makes it us who give in. For superusers only.
    perform set_config('deadlock_timeout', greatest(1, patience / 2)::text, true);
  exception
    when insufficient_privilege then
      null;  -- lock_timeout still bounds the wait
  end;
  for i in 1 .. cardinality(relations) loop
    begin
      perform set_config(
        'lock_timeout', greatest(1, extract(milliseconds from deadline - clock_timestamp())::integer)::text, true);
      execute format('lock table only %s in %s mode', relations[i], modes[i]);
    exception
      when lock_not_available or deadlock_detected then
        select string_agg(distinct format('process %s (%s)', a.pid, coalesce(nullif(a.application_name, ''), a.backend_type)), ', ')
          into holders
          from pg_locks l
          join pg_stat_activity a using (pid)
         where l.relation = relations[i] and l.granted and l.pid <> pg_backend_pid()
           and l.database = (select d.oid from pg_database d where d.datname = current_database());
        raise lock_not_available using
          message = format('no lock on %s within %s ms', relations[i], patience),
          detail = coalesce(holders, 'Sessions that have ended since') || ' stood in the way.';
    end;
  end loop;
  perform set_config('lock_timeout', patience::text, true);
end
$$;

-- After the above, for the rest of the caller's transaction.
create or replace function b44.wait_as_before(lock_timeout text, deadlock_timeout text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
begin
  perform set_config('lock_timeout', $1, true);
  -- For superusers only; for others it is as it was.
  if current_setting('deadlock_timeout') <> $2 then
    perform set_config('deadlock_timeout', $2, true);
  end if;
end
$$;

-- Before the next attempt: twice as long each time, up to a second, less up to a half at random.
create or replace function b44.pause(attempt integer) returns void
language sql
set search_path = public, pg_temp
as $$
  select pg_sleep(least(0.05 * 2 ^ least(attempt, 10), 1) * (1 - random() / 2))
$$;

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
    select format('grant %s on %s to %s%s', g.privilege_type, successor,
                  case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                  case when g.is_grantable then ' with grant option' else '' end) as statement
      from pg_class d, aclexplode(d.relacl) g
     where d.oid = default_partition and g.grantee <> d.relowner
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

create or replace function b44.referenced_tables(relation regclass) returns regclass[]
language sql stable
set search_path = public, pg_temp
as $$
  select coalesce(array_agg(distinct confrelid::regclass), '{}')
    from pg_constraint
   where conrelid = relation and contype = 'f' and confrelid <> relation
$$;

-- Foreign keys that lead to a table.
create or replace function b44.incoming_keys(
  relation regclass
) returns table(referencing regclass, constraint_name name, definition text, validated boolean, referencing_kind "char")
language sql stable
set search_path = public, pg_temp
as $$
  select c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid), c.convalidated, t.relkind
    from pg_constraint c
    join pg_class t on t.oid = c.conrelid
   where c.confrelid = relation and c.contype = 'f' and c.conparentid = 0
   order by c.conname
$$;

create or replace function b44.key_of(relation regclass) returns name[]
language plpgsql stable
set search_path = public, pg_temp
as $$
declare
  key_columns name[];
begin
  select array_agg(a.attname order by k.place) into key_columns
    from pg_index i
    cross join unnest(i.indkey) with ordinality as k (attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
   where i.indrelid = relation and i.indisprimary;
  if key_columns is null then
    raise object_not_in_prerequisite_state using message = format('%s has no primary key', relation);
  end if;
  return key_columns;
end
$$;

-- Columns that can be written to.
create or replace function b44.columns_of(relation regclass, prefix text default '') returns text
language sql stable
set search_path = public, pg_temp
as $$
  select string_agg(prefix || quote_ident(attname), ', ' order by attnum)
    from pg_attribute
   where attrelid = relation and attnum > 0 and not attisdropped and attgenerated = ''
$$;

create or replace function b44.same_key(relation regclass, one text, other text) returns text
language sql stable
set search_path = public, pg_temp
as $$
  select string_agg(format('%1$s.%3$I = %2$s.%3$I', one, other, k), ' and ') from unnest(b44.key_of(relation)) k
$$;

create or replace function b44.has_rows(relation regclass, condition text) returns boolean
language plpgsql
set search_path = public, pg_temp
as $$
declare
  found_one boolean;
begin
  execute format('select exists (select from only %s where %s)', relation, condition) into found_one;
  return found_one;
end
$$;

-- The locks under which partitions are attached; `replacing` the default partition, or moving rows of it, locks more.
create or replace function b44.lock_to_attach(
  parent regclass, default_partition regclass, replacing boolean, patience integer
) returns void
language sql
set search_path = public, pg_temp
as $$
  select b44.lock_briefly(array_agg(l.relation order by l.place), array_agg(l.mode order by l.place), patience)
    from (
      select 1 as place, r as relation, case when replacing then 'access exclusive' else 'share row exclusive' end as mode
        from unnest(b44.referenced_tables(parent)) r
      union all
      select 2, parent, case when replacing then 'access exclusive' else 'share update exclusive' end
      union all
      select 3, default_partition, 'access exclusive' where default_partition is not null
    ) l
$$;

-- Transactions that keep a snapshot from one statement to the next, as REPEATABLE READ does, or may: what goes on in a
-- transaction block may be either. One that `seen_before` names may meanwhile be waiting for our own lock.
create or replace function b44.standing_snapshots(seen_before text[] default null) returns table (transaction text)
language plpgsql
set search_path = public, pg_temp
as $$
begin
  perform pg_stat_clear_snapshot();
  return query
    select t.name
      from pg_stat_activity a
     cross join format('%s %s', a.pid, a.xact_start) as t (name)
     where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
       and a.backend_xmin is not null
       and (a.state like 'idle in transaction%' or t.name = any (seen_before)
            or (a.xact_start < a.query_start and a.wait_event_type is distinct from 'Lock'));
end
$$;

-- Copies rows that still are in use, and notes which versions of them it took. Refuses more than `most_rows`.
create or replace function b44.copy_rows(source regclass, copy regclass, within text, most_rows bigint, hint text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  noted constant text := 'b44_copied_' || copy::oid;
  taken bigint;
begin
  execute format('create temporary table %I on commit drop as select ctid as place, xmin as version, %s from only %s where %s limit %s',
    noted, (select string_agg(quote_ident(k), ', ') from unnest(b44.key_of(source)) k), source, within, most_rows + 1);
  get diagnostics taken = row_count;
  if taken > most_rows then
    raise object_not_in_prerequisite_state using hint = hint, message = format(
      'more than %s rows of %s cannot be moved while others wait', most_rows, source);
  end if;
  execute format('analyze pg_temp.%I', noted);
  -- ATTACH believes it, and need not look.
  execute format('alter table %s add constraint b44_bounds check (%s)', copy, within);
  execute format('insert into %s (%s) select %s from only %s s join pg_temp.%I n on n.place = s.ctid and n.version = s.xmin',
    copy, b44.columns_of(source), b44.columns_of(source, 's.'), source, noted);
end
$$;

-- Brings such a copy up to date, once nobody can write any more. A version that is neither noted nor copied is new; one
-- that was noted and is gone was changed or deleted.
create or replace function b44.copy_changes(source regclass, copy regclass, within text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  noted constant text := 'b44_copied_' || copy::oid;
begin
  execute format('delete from %s c using pg_temp.%I n where %s and not exists ('
    'select from only %s s where s.ctid = n.place and s.xmin = n.version)',
    copy, noted, b44.same_key(source, 'c', 'n'), source);
  execute format('insert into %s (%s) select %s from only %s s where %s and not exists ('
    'select from pg_temp.%I n where n.place = s.ctid and n.version = s.xmin)',
    copy, b44.columns_of(source), b44.columns_of(source, 's.'), source, within, noted);
  execute format('alter table %s drop constraint b44_bounds, add constraint b44_bounds check (%s)', copy, within);
end
$$;

-- Takes rows out that live on elsewhere, so that no trigger may act as if they were deleted.
create or replace function b44.delete_rows(relation regclass, condition text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  item record;
  silenced text[] := '{}';
begin
  for item in
    select format('alter table %s %%s trigger %I', relation, tgname) as statement,
           case tgenabled when 'R' then 'enable replica' when 'A' then 'enable always' else 'enable' end as again
      from pg_trigger
     where tgrelid = relation and not tgisinternal and tgenabled <> 'D' and tgtype & 8 = 8
  loop
    execute format(item.statement, 'disable');
    silenced := silenced || format(item.statement, item.again);
  end loop;
  execute format('delete from only %s where %s', relation, condition);
  foreach item.statement in array silenced loop
    execute item.statement;
  end loop;
end
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

-- Makes partitions in one transaction. Rows of theirs that lie in the default partition come along: it turns into the
-- partition where it holds nothing else, or they are copied while others work, and only what changed since is moved under the lock.
create or replace function b44.create_partitions(parent text, period text, days date[]) returns text[]
language plpgsql
set search_path = public, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $$
declare
  patience constant integer := 60;
  most_attempts constant integer := 60;
  most_rows constant bigint := 100000;
  most_bytes constant bigint := 1 << 30;
  target record := b44.partitioning(parent);
  caller_lock_timeout constant text := current_setting('lock_timeout');
  caller_deadlock_timeout constant text := current_setting('deadlock_timeout');
  hint constant text := format('Run by itself: call drain_default_partition(%L, %L)', parent, period);
  drain regclass;
  answer text[];
  names text[];            -- of the partitions to make; their places in this list are those in the next four
  firsts timestamptz[];
  nexts timestamptz[];
  within text[];           -- SQL that is true for their rows
  built regclass[];        -- the tables that are to become partitions
  held integer[];          -- places of periods that the default partition has rows of
  becomes integer;         -- place of the one whose partition the default partition turns into
  successor regclass;      -- the empty table that then is the default partition
  may_become boolean := true;
  copied integer[] := '{}';
  only_one boolean;
  standing text[];         -- transactions that kept a snapshot when the locks were asked for
  place integer;
begin
  for attempt in 1 .. 2 loop
    select array_agg(w.name order by w.first_moment) filter (where w.partition is null),
           array_agg(w.first_moment order by w.first_moment) filter (where w.partition is null),
           array_agg(w.next_moment order by w.first_moment) filter (where w.partition is null),
           array_agg(coalesce(c.relname, w.name) order by w.first_moment)
      into names, firsts, nexts, answer
      from (
        select distinct p.first_moment, p.next_moment, target.table_name || p.suffix as name, e.partition
          from unnest(days) d
         cross join b44.period(period, d) p
          left join b44.partition_bounds(target.relation) e
            on e.first_moment <= p.first_moment and e.next_moment >= p.next_moment
      ) w
      left join pg_class c on c.oid = w.partition;
    if names is null then
      return coalesce(answer, '{}');
    elsif attempt = 1 then
      -- Then looks again: another session may just have made them, and a new default partition.
      perform b44.lock_partitions(target.relation);
      target := b44.partitioning(parent);
      drain := to_regclass(format('%I.%I', target.schema_name, target.table_name || '_drain'));
    end if;
  end loop;

  for i in 1 .. cardinality(names) loop
    within[i] := b44.within(target.key_column, target.key_type, firsts[i], nexts[i]);
    if exists (select from pg_inherits h where h.inhparent = drain
                  and h.inhrelid = to_regclass(format('%I.%I', target.schema_name, names[i]))) then
      raise object_in_use using hint = hint, message = format(
        'rows of %s are being moved to %s, or this was interrupted', target.default_partition, names[i]);
    elsif to_regclass(format('%I.%I', target.schema_name, names[i])) is not null then
      raise duplicate_table using hint = 'Rename it, or attach it.', message = format(
        'there is a table %s that is no partition of %s', names[i], parent);
    end if;
  end loop;

  for attempt in 1 .. most_attempts loop
    if held is null then
      held := '{}';
      if target.default_partition is not null then
        if pg_relation_size(target.default_partition) > most_bytes then
          raise object_not_in_prerequisite_state using hint = hint, message = format(
            '%s is too large to be looked through while others wait', target.default_partition);
        end if;
        -- Without a lock: ATTACH will look again.
        for i in 1 .. cardinality(names) loop
          if b44.has_rows(target.default_partition, within[i]) then
            held := held || i;
          end if;
        end loop;
      end if;
      if held <> '{}' then
        if current_setting('transaction_isolation') <> 'read committed' then
          raise active_sql_transaction using message = format(
            'rows of %s can be moved only in a transaction with READ COMMITTED', target.default_partition);
        elsif drain is not null or exists (select from b44.incoming_keys(target.relation)) then
          raise object_not_in_prerequisite_state using hint = hint, message = format(
            'rows of %s cannot be moved in one transaction', target.default_partition);
        end if;
        only_one := cardinality(held) = 1
          and not b44.has_rows(target.default_partition, format('(%s) is not true', within[held[1]]));
        if only_one and may_become and b44.tied_to(target.default_partition) is null then
          becomes := held[1];
          successor := b44.build_partition(parent, names[becomes] || '_new');
          perform b44.adopt_access(target.default_partition, successor);
          if built[becomes] is not null then
            execute format('drop table %s', built[becomes]);
          end if;
          built[becomes] := target.default_partition;
        end if;
      end if;
    end if;
    for i in 1 .. cardinality(names) loop
      if built[i] is null then
        built[i] := b44.build_partition(parent, names[i]);
        perform b44.describe_partition(target.relation, built[i], period, firsts[i]);
      end if;
    end loop;
    if becomes is null then
      foreach place in array held loop
        if not place = any (copied) then
          perform b44.copy_rows(target.default_partition, built[place], within[place], most_rows, hint);
          copied := copied || place;
        end if;
      end loop;
    end if;

    begin
      select array_agg(s.transaction) into standing from b44.standing_snapshots() s;
      -- Whoever has its list of partitions, but not read the default one yet, would miss rows that move.
      perform b44.lock_to_attach(target.relation, target.default_partition, held <> '{}', patience);
      if held <> '{}' and becomes is null and exists (select from b44.standing_snapshots(standing)) then
        raise lock_not_available using hint = hint, message = format(
          'a transaction with a snapshot of before would not see rows of %s where they move to', target.default_partition);
      end if;
      if becomes is not null then
        execute format('alter table %s detach partition %s', target.relation, target.default_partition);
        perform b44.replace_partition(target.default_partition, names[becomes], successor);
      elsif held <> '{}' then
        foreach place in array held loop
          perform b44.copy_changes(target.default_partition, built[place], within[place]);
        end loop;
        perform b44.delete_rows(target.default_partition,
          (select string_agg('(' || within[p] || ')', ' or ') from unnest(held) p));
      end if;
      perform b44.attach(target.relation, case when becomes is null then target.default_partition end, built, firsts, nexts);
      if becomes is not null then
        execute format('alter table %s attach partition %s default', target.relation, successor);
        perform b44.describe_partition(target.relation, built[becomes], period, firsts[becomes]);
      end if;
      exit;
    exception
      when lock_not_available or deadlock_detected then
        if attempt = most_attempts then
          raise;
        end if;
      when check_violation then
        -- A row has come in that was not there when we looked.
        if attempt = most_attempts then
          raise;
        end if;
        may_become := becomes is null;
        if becomes is not null then
          execute format('drop table %s', successor);
          built[becomes] := null;
          becomes := null;
        end if;
        held := null;
    end;
    perform b44.pause(attempt);
  end loop;
  perform b44.wait_as_before(caller_lock_timeout, caller_deadlock_timeout);
  return answer;
end
$$;

create or replace function b44.create_partition(parent text, period text, day date) returns text
language sql
set search_path = public, pg_temp
as $$
  select (b44.create_partitions(parent, period, array[day]))[1]
$$;

-- Gaps count, too, so that one made by hand is closed. What lies before 1970 is a slip (a post of the year 202), and no
-- reason for 20,000 partitions.
create or replace function b44.missing_partitions(parent text, period text, ahead integer) returns date[]
language plpgsql stable
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.partitioning(parent);
  this_period constant timestamp := date_trunc(period, now() at time zone 'UTC');
  step constant interval := ('1 ' || period)::interval;
  earliest timestamp;
  missing date[];
begin
  select least(date_trunc(period, min(b.first_moment) filter (where b.first_moment >= '1970-01-01 00:00+00') at time zone 'UTC'), this_period)
    into earliest
    from b44.partition_bounds(target.relation) b;
  select coalesce(array_agg(d::date order by d), '{}') into missing
    from generate_series(earliest, this_period + ahead * step, step) d
   where not exists (
     select from b44.partition_bounds(target.relation) b
      where b.first_moment < (d + step) at time zone 'UTC' and b.next_moment > d at time zone 'UTC');
  return missing;
end
$$;

create or replace function b44.manage_partitions(parent text, period text, ahead integer) returns text[]
language sql
set search_path = public, pg_temp
as $$
  select b44.follow_truncate_triggers(relation) from b44.partitioning(parent);
  select b44.create_partitions(parent, period, b44.missing_partitions(parent, period, ahead))
$$;

-- Plain DETACH, since CONCURRENTLY is not possible where there is a default partition; its lock is held for an instant.
create or replace function detach_partitions_before(parent text, day date, at_most integer default null) returns text[]
language plpgsql
set search_path = public, pg_temp
as $$
declare
  patience constant integer := 60;
  most_attempts constant integer := 60;
  target record := b44.partitioning(parent);
  caller_lock_timeout constant text := current_setting('lock_timeout');
  caller_deadlock_timeout constant text := current_setting('deadlock_timeout');
  item record;
  detached text[] := '{}';
begin
  perform b44.lock_partitions(target.relation);
  target := b44.partitioning(parent);
  for item in
    select b.partition, c.relname
      from b44.partition_bounds(target.relation) b
      join pg_class c on c.oid = b.partition
     where b.next_moment at time zone 'UTC' <= day  -- compared as it is: a far day is no timestamp
     order by b.next_moment
     limit at_most
  loop
    for attempt in 1 .. most_attempts loop
      begin
        perform b44.lock_to_attach(target.relation, target.default_partition, true, patience);
        execute format('alter table %s detach partition %s', target.relation, item.partition);
        detached := detached || item.relname::text;
        exit;
      exception
        when lock_not_available or deadlock_detected then
          if attempt = most_attempts then
            raise;
          end if;
      end;
      perform b44.pause(attempt);
    end loop;
  end loop;
  perform b44.wait_as_before(caller_lock_timeout, caller_deadlock_timeout);
  return detached;
end
$$;

comment on function b44.create_partitions is 'Makes the partitions of the months or years that days lie in, moving rows out of the default partition; returns their names';
comment on function b44.create_partition is 'Makes the partition of a month or year that a day lies in, if it is not there; returns its name';
comment on function b44.missing_partitions is 'First days of the periods that should have a partition and have none, from the earliest partition to some periods ahead';
comment on function b44.manage_partitions is 'Makes the partitions from the earliest to some periods ahead that are not there; returns their names';
comment on function detach_partitions_before is 'Detaches partitions that end by a day (UTC) and keeps them as tables; returns their names';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.partitioning(text),
  b44.period(text, date),
  b44.partition_bounds(regclass),
  b44.within(name, regtype, timestamptz, timestamptz, boolean),
  b44.lock_partitions(regclass),
  b44.lock_briefly(regclass[], text[], integer),
  b44.wait_as_before(text, text),
  b44.pause(integer),
  b44.index_form(oid),
  b44.build_partition(text, text, text),
  b44.add_unvalidated_checks(regclass, regclass),
  b44.truncate_trigger(oid, regclass),
  b44.follow_truncate_triggers(regclass),
  b44.adopt_settings(regclass, regclass, regclass),
  b44.adopt_access(regclass, regclass),
  b44.rename_partition(regclass, text),
  b44.tied_to(regclass),
  b44.referenced_tables(regclass),
  b44.incoming_keys(regclass),
  b44.key_of(regclass),
  b44.columns_of(regclass, text),
  b44.same_key(regclass, text, text),
  b44.has_rows(regclass, text),
  b44.lock_to_attach(regclass, regclass, boolean, integer),
  b44.standing_snapshots(text[]),
  b44.copy_rows(regclass, regclass, text, bigint, text),
  b44.copy_changes(regclass, regclass, text),
  b44.delete_rows(regclass, text),
  b44.replace_partition(regclass, text, regclass),
  b44.describe_partition(regclass, regclass, text, timestamptz),
  b44.attach(regclass, regclass, regclass[], timestamptz[], timestamptz[]),
  b44.create_partitions(text, text, date[]),
  b44.create_partition(text, text, date),
  b44.missing_partitions(text, text, integer),
  b44.manage_partitions(text, text, integer),
  detach_partitions_before(text, date, integer)
from public;
