CREATE OR REPLACE FUNCTION public.base44_partitioning(parent text, OUT relation regclass, OUT schema_name name, OUT table_name name, OUT key_column name, OUT key_type regtype, OUT default_partition regclass)
 RETURNS record
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.base44_period(period text, day date, OUT first_moment timestamp with time zone, OUT next_moment timestamp with time zone, OUT suffix text)
 RETURNS record
 LANGUAGE plpgsql
 IMMUTABLE
AS $function$
declare
  first_day constant timestamp := date_trunc(period, day::timestamp);
begin
  if period is null or period not in ('month', 'year') then
    raise invalid_parameter_value using message = format('a period is month or year, not %L', period);
  elsif day is null or not isfinite(day) or day < '0001-01-01' then
    raise invalid_parameter_value using message = format('there is no %s of %L', period, day);
  end if;
  first_moment := first_day at time zone 'UTC';
  next_moment := (first_day + ('1 ' || period)::interval) at time zone 'UTC';
  suffix := to_char(first_day, case period when 'month' then '_YYYY_MM' else '_YYYY' end);
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_partition_bounds(parent regclass)
 RETURNS TABLE(partition regclass, first_moment timestamp with time zone, next_moment timestamp with time zone)
 LANGUAGE sql
 STABLE
 SET "TimeZone" TO 'UTC'
 SET "DateStyle" TO 'ISO, YMD'
AS $function$
  select b.partition,
         case b.ends[1] when 'MINVALUE' then '-infinity' else trim(both '''' from b.ends[1])::timestamptz end,
         case b.ends[2] when 'MAXVALUE' then 'infinity' else trim(both '''' from b.ends[2])::timestamptz end
    from (
      select c.oid::regclass as partition,
             regexp_match(pg_get_expr(c.relpartbound, c.oid), '^FOR VALUES FROM \((.*)\) TO \((.*)\)$') as ends
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
       where i.inhparent = parent and not i.inhdetachpending
    ) b
   where b.ends is not null
$function$;

CREATE OR REPLACE FUNCTION public.base44_within(key_column name, key_type regtype, first_moment timestamp with time zone, next_moment timestamp with time zone, outside boolean DEFAULT false)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET "TimeZone" TO 'UTC'
 SET "DateStyle" TO 'ISO, YMD'
AS $function$
  select case
    when outside then concat_ws(' or ',
      case when isfinite(first_moment) then format('%I < %L::%s', key_column, first_moment, key_type) end,
      case when isfinite(next_moment) then format('%I >= %L::%s', key_column, next_moment, key_type) end)
    else format('%I >= %L::%s and %I < %L::%s', key_column, first_moment, key_type, key_column, next_moment, key_type)
  end
$function$;

CREATE OR REPLACE FUNCTION public.base44_lock_partitions(relation regclass)
 RETURNS void
 LANGUAGE sql
AS $function$
  select pg_advisory_xact_lock(hashtextextended('b44 partitions', relation::oid::bigint))
$function$;

CREATE OR REPLACE FUNCTION public.base44_lock_briefly(relations regclass[], modes text[], patience integer)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.base44_index_form(index_id oid)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  select i.indisunique || substr(pg_get_indexdef(i.indexrelid), strpos(pg_get_indexdef(i.indexrelid), ' USING '))
    from pg_index i
   where i.indexrelid = index_id
$function$;

CREATE OR REPLACE FUNCTION public.base44_build_partition(parent text, new_table text, kind text DEFAULT ''::text)
 RETURNS regclass
 LANGUAGE plpgsql
AS $function$
declare
  target constant record := base44_partitioning(parent);
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
  perform base44_adopt_settings(target.relation, target.default_partition, built);
  return built;
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_add_unvalidated_checks(parent regclass, partition regclass)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.base44_adopt_settings(parent regclass, default_partition regclass, partition regclass)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  item record;
begin
  for item in
    select format('alter table %s owner to %I', partition, pg_get_userbyid(p.relowner)) as statement
      from pg_class p join pg_class t on t.oid = partition
     where p.oid = parent and p.relowner <> t.relowner
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
    having count(*) > 0
    union all
    select format('alter table %s alter column %I set statistics %s', partition, a.attname, a.attstattarget)
      from pg_attribute a
     where a.attrelid = parent and a.attnum > 0 and not a.attisdropped and a.attstattarget >= 0
    union all
    select format('alter index %s alter column %s set statistics %s', ours.indexrelid::regclass, a.attnum, a.attstattarget)
      from pg_index theirs
      join pg_attribute a on a.attrelid = theirs.indexrelid and a.attnum > 0 and a.attstattarget >= 0
      join pg_index ours on ours.indrelid = partition and ours.indexprs is not null
       and base44_index_form(ours.indexrelid) = base44_index_form(theirs.indexrelid)
     where theirs.indrelid = parent and theirs.indexprs is not null
  loop
    execute item.statement;
  end loop;
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_adopt_access(default_partition regclass, successor regclass)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.base44_rename_partition(partition regclass, new_name text)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.base44_tied_to(default_partition regclass)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.base44_referenced_tables(relation regclass)
 RETURNS regclass[]
 LANGUAGE sql
 STABLE
AS $function$
  select coalesce(array_agg(distinct confrelid::regclass), '{}')
    from pg_constraint
   where conrelid = relation and contype = 'f' and confrelid <> relation
$function$;

CREATE OR REPLACE FUNCTION public.base44_incoming_keys(relation regclass)
 RETURNS TABLE(referencing regclass, constraint_name name, definition text, validated boolean, referencing_kind "char")
 LANGUAGE sql
 STABLE
AS $function$
  select c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid), c.convalidated, t.relkind
    from pg_constraint c
    join pg_class t on t.oid = c.conrelid
   where c.confrelid = relation and c.contype = 'f' and c.conparentid = 0
   order by c.conname
$function$;

CREATE OR REPLACE FUNCTION public.base44_key_of(relation regclass)
 RETURNS name[]
 LANGUAGE plpgsql
 STABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.base44_columns_of(relation regclass, prefix text DEFAULT ''::text)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  select string_agg(prefix || quote_ident(attname), ', ' order by attnum)
    from pg_attribute
   where attrelid = relation and attnum > 0 and not attisdropped and attgenerated = ''
$function$;

CREATE OR REPLACE FUNCTION public.base44_same_key(relation regclass, one text, other text)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  select string_agg(format('%1$s.%3$I = %2$s.%3$I', one, other, k), ' and ') from unnest(base44_key_of(relation)) k
$function$;

CREATE OR REPLACE FUNCTION public.base44_has_rows(relation regclass, condition text)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
declare
  found_one boolean;
begin
  execute format('select exists (select from only %s where %s)', relation, condition) into found_one;
  return found_one;
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_lock_to_attach(parent regclass, default_partition regclass, replacing boolean, patience integer)
 RETURNS void
 LANGUAGE sql
AS $function$
  select base44_lock_briefly(array_agg(l.relation order by l.place), array_agg(l.mode order by l.place), patience)
    from (
      select 1 as place, r as relation, case when replacing then 'access exclusive' else 'share row exclusive' end as mode
        from unnest(base44_referenced_tables(parent)) r
      union all
      select 2, parent, case when replacing then 'access exclusive' else 'share update exclusive' end
      union all
      select 3, default_partition, 'access exclusive' where default_partition is not null
    ) l
$function$;

CREATE OR REPLACE FUNCTION public.base44_copy_rows(source regclass, copy regclass, within text, most_rows bigint, hint text)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  noted constant text := 'b44_copied_' || copy::oid;
  taken bigint;
begin
  execute format('create temporary table %I on commit drop as select ctid as place, xmin as version, %s from only %s where %s limit %s',
    noted, (select string_agg(quote_ident(k), ', ') from unnest(base44_key_of(source)) k), source, within, most_rows + 1);
  get diagnostics taken = row_count;
  if taken > most_rows then
    raise object_not_in_prerequisite_state using hint = hint, message = format(
      'more than %s rows of %s cannot be moved while others wait', most_rows, source);
  end if;
  execute format('analyze pg_temp.%I', noted);
  -- ATTACH believes it, and need not look.
  execute format('alter table %s add constraint b44_bounds check (%s)', copy, within);
  execute format('insert into %s (%s) select %s from only %s s join pg_temp.%I n on n.place = s.ctid and n.version = s.xmin',
    copy, base44_columns_of(source), base44_columns_of(source, 's.'), source, noted);
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_copy_changes(source regclass, copy regclass, within text)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  noted constant text := 'b44_copied_' || copy::oid;
begin
  execute format('delete from %s c using pg_temp.%I n where %s and not exists ('
    'select from only %s s where s.ctid = n.place and s.xmin = n.version)',
    copy, noted, base44_same_key(source, 'c', 'n'), source);
  execute format('insert into %s (%s) select %s from only %s s where %s and not exists ('
    'select from pg_temp.%I n where n.place = s.ctid and n.version = s.xmin)',
    copy, base44_columns_of(source), base44_columns_of(source, 's.'), source, within, noted);
  execute format('alter table %s drop constraint b44_bounds, add constraint b44_bounds check (%s)', copy, within);
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_delete_rows(relation regclass, condition text)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.base44_replace_partition(default_partition regclass, new_name text, successor regclass)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  default_name constant text := (select relname from pg_class where oid = default_partition);
begin
  perform base44_rename_partition(default_partition, new_name);
  perform base44_rename_partition(successor, default_name);
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_describe_partition(parent regclass, partition regclass, period text, first_moment timestamp with time zone)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
begin
  execute format('comment on table %s is %L', partition, format('%s of %s (UTC)',
    (select relname from pg_class where oid = parent),
    to_char(first_moment at time zone 'UTC', case period when 'month' then 'YYYY-MM' else 'YYYY' end)));
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_attach(parent regclass, default_partition regclass, partitions regclass[], firsts timestamp with time zone[], nexts timestamp with time zone[])
 RETURNS void
 LANGUAGE plpgsql
 SET "TimeZone" TO 'UTC'
 SET "DateStyle" TO 'ISO, YMD'
AS $function$
declare
  target constant record := base44_partitioning(parent::text);
  apart boolean := false;
begin
  if cardinality(partitions) > 1 and default_partition is not null and pg_relation_size(default_partition) > 0 then
    apart := true;
    execute format('alter table %s add constraint b44_apart check (%s)', default_partition, (
      select string_agg('(' || base44_within(target.key_column, target.key_type, f, n, true) || ')', ' and ')
        from unnest(firsts, nexts) as b (f, n)));
  end if;
  for i in 1 .. cardinality(partitions) loop
    perform base44_add_unvalidated_checks(parent, partitions[i]);
    execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, partitions[i], firsts[i], nexts[i]);
    execute format('alter table %s drop constraint if exists b44_bounds', partitions[i]);
  end loop;
  if apart then
    execute format('alter table %s drop constraint b44_apart', default_partition);
  end if;
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_create_partitions(parent text, period text, days date[])
 RETURNS text[]
 LANGUAGE plpgsql
 SET "TimeZone" TO 'UTC'
 SET "DateStyle" TO 'ISO, YMD'
AS $function$
declare
  patience constant integer := 60;
  most_attempts constant integer := 60;
  most_rows constant bigint := 100000;
  most_bytes constant bigint := 1 << 30;
  target record := base44_partitioning(parent);
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
         cross join base44_period(period, d) p
          left join base44_partition_bounds(target.relation) e
            on e.first_moment <= p.first_moment and e.next_moment >= p.next_moment
      ) w
      left join pg_class c on c.oid = w.partition;
    if names is null then
      return coalesce(answer, '{}');
    elsif attempt = 1 then
      -- Then looks again: another session may just have made them, and a new default partition.
      perform base44_lock_partitions(target.relation);
      target := base44_partitioning(parent);
      drain := to_regclass(format('%I.%I', target.schema_name, target.table_name || '_drain'));
    end if;
  end loop;

  for i in 1 .. cardinality(names) loop
    within[i] := base44_within(target.key_column, target.key_type, firsts[i], nexts[i]);
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
          if base44_has_rows(target.default_partition, within[i]) then
            held := held || i;
          end if;
        end loop;
      end if;
      if held <> '{}' then
        if current_setting('transaction_isolation') <> 'read committed' then
          raise active_sql_transaction using message = format(
            'rows of %s can be moved only in a transaction with READ COMMITTED', target.default_partition);
        elsif drain is not null or exists (select from base44_incoming_keys(target.relation)) then
          raise object_not_in_prerequisite_state using hint = hint, message = format(
            'rows of %s cannot be moved in one transaction', target.default_partition);
        end if;
        only_one := cardinality(held) = 1
          and not base44_has_rows(target.default_partition, format('(%s) is not true', within[held[1]]));
        if only_one and may_become and base44_tied_to(target.default_partition) is null then
          becomes := held[1];
          successor := base44_build_partition(parent, names[becomes] || '_new');
          perform base44_adopt_access(target.default_partition, successor);
          if built[becomes] is not null then
            execute format('drop table %s', built[becomes]);
          end if;
          built[becomes] := target.default_partition;
        end if;
      end if;
    end if;
    for i in 1 .. cardinality(names) loop
      if built[i] is null then
        built[i] := base44_build_partition(parent, names[i]);
        perform base44_describe_partition(target.relation, built[i], period, firsts[i]);
      end if;
    end loop;
    if becomes is null then
      foreach place in array held loop
        if not place = any (copied) then
          perform base44_copy_rows(target.default_partition, built[place], within[place], most_rows, hint);
          copied := copied || place;
        end if;
      end loop;
    end if;

    begin
      perform base44_lock_to_attach(target.relation, target.default_partition, becomes is not null, patience);
      if becomes is not null then
        execute format('alter table %s detach partition %s', target.relation, target.default_partition);
        perform base44_replace_partition(target.default_partition, names[becomes], successor);
      elsif held <> '{}' then
        foreach place in array held loop
          perform base44_copy_changes(target.default_partition, built[place], within[place]);
        end loop;
        perform base44_delete_rows(target.default_partition,
          (select string_agg('(' || within[p] || ')', ' or ') from unnest(held) p));
      end if;
      perform base44_attach(target.relation, case when becomes is null then target.default_partition end, built, firsts, nexts);
      if becomes is not null then
        execute format('alter table %s attach partition %s default', target.relation, successor);
        perform base44_describe_partition(target.relation, built[becomes], period, firsts[becomes]);
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
    perform pg_sleep(least(0.05 * 2 ^ least(attempt, 10), 1) * (1 - random() / 2));
  end loop;
  perform set_config('lock_timeout', caller_lock_timeout, true);
  if current_setting('deadlock_timeout') <> caller_deadlock_timeout then
    perform set_config('deadlock_timeout', caller_deadlock_timeout, true);
  end if;
  return answer;
end
$function$;
comment on function base44_create_partitions is 'Makes the partitions of the months or years that days lie in, moving rows out of the default partition; returns their names';

CREATE OR REPLACE FUNCTION public.base44_create_partition(parent text, period text, day date)
 RETURNS text
 LANGUAGE sql
AS $function$
  select (base44_create_partitions(parent, period, array[day]))[1]
$function$;
comment on function base44_create_partition is 'Makes the partition of a month or year that a day lies in, if it is not there; returns its name';

CREATE OR REPLACE FUNCTION public.create_monthly_partition(target_month date)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
begin
  perform base44_create_partition('posts', 'month', target_month);
end
$function$;
comment on function create_monthly_partition is 'Makes the partition of posts for a month (UTC), if it is not there; rows of that month in the default partition move to it';

CREATE OR REPLACE FUNCTION public.base44_missing_partitions(parent text, period text, ahead integer)
 RETURNS date[]
 LANGUAGE plpgsql
 STABLE
AS $function$
declare
  most_made constant integer := 1200;
  target constant record := base44_partitioning(parent);
  this_period constant timestamp := date_trunc(period, now() at time zone 'UTC');
  step constant interval := ('1 ' || period)::interval;
  earliest timestamp;
  missing date[];
begin
  select least(date_trunc(period, min(b.first_moment) filter (where isfinite(b.first_moment)) at time zone 'UTC'), this_period)
    into earliest
    from base44_partition_bounds(target.relation) b;
  for attempt in 1 .. 2 loop
    select coalesce(array_agg(d::date order by d), '{}') into missing
      from generate_series(earliest, this_period + ahead * step, step) d
     where not exists (
       select from base44_partition_bounds(target.relation) b
        where b.first_moment < (d + step) at time zone 'UTC' and b.next_moment > d at time zone 'UTC');
    exit when cardinality(missing) <= most_made;
    -- A single post of the year 202 is a slip, and no reason for 20,000 partitions.
    raise warning '% partitions of % are missing since %; only those from now on count', cardinality(missing), parent, earliest::date;
    earliest := this_period;
  end loop;
  return missing;
end
$function$;
comment on function base44_missing_partitions is 'First days of the periods that should have a partition and have none, from the earliest partition to some periods ahead';

CREATE OR REPLACE FUNCTION public.base44_manage_partitions(parent text, period text, ahead integer)
 RETURNS text[]
 LANGUAGE sql
AS $function$
  select base44_create_partitions(parent, period, base44_missing_partitions(parent, period, ahead))
$function$;
comment on function base44_manage_partitions is 'Makes the partitions from the earliest to some periods ahead that are not there; returns their names';

CREATE OR REPLACE FUNCTION public.manage_partitions()
 RETURNS void
 LANGUAGE plpgsql
AS $function$
begin
  if to_regclass('posts') is not null then
    perform base44_manage_partitions('posts', 'month', 12);
  end if;
  if to_regclass('audit_logs') is not null then
    perform base44_manage_partitions('audit_logs', 'year', 1);
  end if;
end
$function$;
comment on function manage_partitions is 'Keeps partitions ahead: of posts for 12 months, of audit_logs for the next year';

CREATE OR REPLACE FUNCTION public.detach_partitions_before(parent text, day date, at_most integer DEFAULT NULL::integer)
 RETURNS text[]
 LANGUAGE plpgsql
AS $function$
declare
  patience constant integer := 60;
  most_attempts constant integer := 60;
  target record := base44_partitioning(parent);
  caller_lock_timeout constant text := current_setting('lock_timeout');
  caller_deadlock_timeout constant text := current_setting('deadlock_timeout');
  item record;
  detached text[] := '{}';
begin
  perform base44_lock_partitions(target.relation);
  target := base44_partitioning(parent);
  for item in
    select b.partition, c.relname
      from base44_partition_bounds(target.relation) b
      join pg_class c on c.oid = b.partition
     where b.next_moment <= day::timestamp at time zone 'UTC'
     order by b.next_moment
     limit at_most
  loop
    for attempt in 1 .. most_attempts loop
      begin
        perform base44_lock_to_attach(target.relation, target.default_partition, true, patience);
        execute format('alter table %s detach partition %s', target.relation, item.partition);
        detached := detached || item.relname::text;
        exit;
      exception
        when lock_not_available or deadlock_detected then
          if attempt = most_attempts then
            raise;
          end if;
      end;
      perform pg_sleep(least(0.05 * 2 ^ least(attempt, 10), 1) * (1 - random() / 2));
    end loop;
  end loop;
  perform set_config('lock_timeout', caller_lock_timeout, true);
  if current_setting('deadlock_timeout') <> caller_deadlock_timeout then
    perform set_config('deadlock_timeout', caller_deadlock_timeout, true);
  end if;
  return detached;
end
$function$;
comment on function detach_partitions_before is 'Detaches partitions that end by a day (UTC) and keeps them as tables; returns their names';

CREATE OR REPLACE FUNCTION public.refresh_user_stats()
 RETURNS void
 LANGUAGE plpgsql
 SET lock_timeout TO '10min'
AS $function$
begin
  perform pg_advisory_xact_lock(hashtextextended('refresh user_post_stats', 44));
  if (select c.relispopulated from pg_catalog.pg_class c where c.oid = 'user_post_stats'::regclass) then
    refresh materialized view concurrently user_post_stats;
  else
    refresh materialized view user_post_stats;
  end if;
  perform base44_note_refresh('user_post_stats');
end
$function$;
comment on function refresh_user_stats is 'Brings user_post_stats up to date without keeping its readers waiting';

CREATE OR REPLACE FUNCTION public.base44_note_refresh(view regclass)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
begin
  execute format('comment on materialized view %s is %L', view,
    regexp_replace(coalesce(obj_description(view, 'pg_class'), ''), ', as of .*$', '')
      || ', as of ' || to_char(now() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || ' UTC');
end
$function$;
comment on function base44_note_refresh is 'Notes in the comment of a materialized view that it shows what is there now';

CREATE OR REPLACE FUNCTION public.base44_trim(value text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN NULLIF(btrim(value, ' 	
                 　﻿'::text), ''::text);
comment on function base44_trim is 'The text without white space around it; null where nothing is left';

CREATE OR REPLACE FUNCTION public.base44_present(value text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (((ascii(value) >= 33) AND (ascii(value) <= 126)) OR (base44_trim(value) IS NOT NULL)) THEN value ELSE NULL::text END;
comment on function base44_present is 'The text as it is; null where it is empty or white space';

CREATE OR REPLACE FUNCTION public.base44_slug(value text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN NULLIF(TRIM(BOTH '-'::text FROM regexp_replace(lower((value COLLATE base44_unicode)), '[^[:alnum:]]+'::text, '-'::text, 'g'::text)), ''::text);
comment on function base44_slug is 'The text as a part of a web address, not yet unique; null where nothing is left';

CREATE OR REPLACE FUNCTION public.base44_qualified(relation regclass)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation
$function$;

CREATE OR REPLACE FUNCTION public.base44_partition_form(parent regclass)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  select md5(concat_ws('|',
    (select string_agg(concat_ws(',', a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated, a.attcollation,
                                 pg_get_expr(d.adbin, d.adrelid)), ';' order by a.attnum)
       from pg_attribute a
       left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = parent and a.attnum > 0 and not a.attisdropped),
    (select string_agg(i.indexrelid::text, ';' order by i.indexrelid) from pg_index i where i.indrelid = parent),
    (select string_agg(concat_ws(',', c.oid, c.convalidated), ';' order by c.oid)
       from pg_constraint c where c.conrelid = parent and c.contype in ('c', 'f') and c.confrelid <> parent),
    (select p.partdefid::text from pg_partitioned_table p where p.partrelid = parent)))
$function$;

CREATE OR REPLACE FUNCTION public.base44_outside(parent regclass, firsts timestamp with time zone[], nexts timestamp with time zone[])
 RETURNS text
 LANGUAGE sql
 STABLE
 SET "TimeZone" TO 'UTC'
 SET "DateStyle" TO 'ISO, YMD'
AS $function$
  with taken as (
    select b.first_moment, b.next_moment from base44_partition_bounds(parent) b
    union
    select f, n from unnest(firsts, nexts) as g (f, n)
  ),
  marked as (
    select t.*, t.first_moment is distinct from lag(t.next_moment) over (order by t.first_moment) as begins from taken t
  ),
  numbered as (
    select m.*, count(*) filter (where m.begins) over (order by m.first_moment) as run from marked m
  ),
  runs as (
    select min(first_moment) as first_moment, max(next_moment) as next_moment from numbered group by run
  )
  select coalesce(string_agg('(' || coalesce(nullif(w.condition, ''), 'false') || ')', ' and ' order by r.first_moment), 'true')
    from base44_partitioning(parent::text) p
   cross join runs r
   cross join lateral (select base44_within(p.key_column, p.key_type, r.first_moment, r.next_moment, true) as condition) w
$function$;

CREATE OR REPLACE FUNCTION public.base44_make_mirror(mirror text, source regclass, drain regclass, noted regclass)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  key_columns constant name[] := base44_key_of(source);
  plain_columns constant name[] := array(
    select a.attname from pg_attribute a
     where a.attrelid = source and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attname <> all (key_columns)
     order by a.attnum);
  insertion text;
begin
  insertion := format('insert into %s (%s) select %s from only %s s where (%s) = (%s) on conflict (%s) do %s',
    base44_qualified(drain), base44_columns_of(source), base44_columns_of(source, 's.'), base44_qualified(source),
    base44_listed(key_columns, 's.'), base44_listed(key_columns, 'new.'), base44_listed(key_columns, ''),
    coalesce('update set ' || (select string_agg(format('%1$I = excluded.%1$I', p), ', ') from unnest(plain_columns) p), 'nothing'));
  execute format($sql$
    create function %1$s() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    as $body$
    begin
      if tg_op = 'TRUNCATE' then
        truncate %2$s;
      elsif tg_op = 'INSERT' then
        %3$s;
      elsif tg_op = 'UPDATE' and (%4$s) = (%5$s) then
        update %2$s d set %6$s from only %7$s s where (%8$s) = (%5$s) and (%9$s) = (%5$s);
        if not found then
          insert into %10$s values (%5$s);
        end if;
      else
        delete from %2$s d where (%8$s) = (%4$s);
        if not found then
          insert into %10$s values (%4$s);
        end if;
        if tg_op = 'UPDATE' then
          %3$s;
        end if;
      end if;
      return null;
    end
    $body$
    $sql$,
    mirror, base44_qualified(drain), insertion, base44_listed(key_columns, 'old.'), base44_listed(key_columns, 'new.'),
    (select string_agg(format('%1$I = s.%1$I', p), ', ')
       from unnest(case when cardinality(plain_columns) > 0 then plain_columns else key_columns end) p),
    base44_qualified(source), base44_listed(key_columns, 'd.'), base44_listed(key_columns, 's.'), base44_qualified(noted));
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_listed(names name[], prefix text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
AS $function$
  select string_agg(prefix || quote_ident(n), ', ' order by place) from unnest(names) with ordinality as u (n, place)
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_begin(parent text, period text, days date[])
 RETURNS jsonb
 LANGUAGE plpgsql
 SET "TimeZone" TO 'UTC'
 SET "DateStyle" TO 'ISO, YMD'
AS $function$
declare
  -- Attaching one takes some milliseconds under the lock; the others have their turn afterwards.
  most_periods constant integer := 6;
  target constant record := base44_partitioning(parent);
  item record;
  total bigint;
  chosen jsonb;
  ties text;
  drain regclass;
  noted regclass;
  owner text;
begin
  if target.default_partition is null then
    return null;
  end if;
  execute format($sql$
    with counted as (
      select date_trunc(%1$L, %2$I::timestamptz at time zone 'UTC') as first_day, count(*) as rows from only %3$s group by 1
    ),
    wanted as (
      select first_day::date, rows from counted where isfinite(first_day) and first_day >= '0001-01-01' and $1 is null
      union all
      select distinct on (1) (p.first_moment at time zone 'UTC')::date, coalesce(c.rows, 0)
        from unnest($1) d
       cross join base44_period(%1$L, d) p
        left join counted c on c.first_day = p.first_moment at time zone 'UTC'
    ),
    named as (
      select p.first_moment, p.next_moment, %4$L || p.suffix as name, w.rows
        from wanted w
       cross join base44_period(%1$L, w.first_day) p
    ),
    free as (
      select n.* from named n
       where to_regclass(format('%%I.%%I', %5$L::text, n.name)) is null
         and not exists (select from base44_partition_bounds(%6$L) b
                          where b.first_moment < n.next_moment and b.next_moment > n.first_moment)
       order by n.rows desc, n.first_moment
       limit %7$s
    )
    select (select sum(rows) from counted), (select jsonb_agg(to_jsonb(f) order by f.first_moment) from free f)
    $sql$,
    period, target.key_column, target.default_partition, target.table_name, target.schema_name, target.relation, most_periods)
    using days into total, chosen;
  if chosen is null then
    return null;
  end if;

  ties := base44_tied_to(target.default_partition);
  if ties is not null then
    raise dependent_objects_still_exist using message = format(
      '%s has what another default partition would not have: %s', target.default_partition, ties);
  end if;
  for item in select * from base44_incoming_keys(target.relation) loop
    if item.referencing_kind = 'p' and current_setting('server_version_num')::integer < 180000 then
      raise feature_not_supported using message = format(
        'foreign key %s of the partitioned table %s leads to %s and could not be added again without a long lock',
        item.constraint_name, item.referencing, parent);
    end if;
  end loop;
  if exists (
    select from unnest(base44_key_of(target.relation)) k join pg_attribute a on a.attrelid = target.relation and a.attname = k
      join pg_type t on t.oid = a.atttypid where t.typnamespace <> 'pg_catalog'::regnamespace) then
    raise feature_not_supported using message = format('the primary key of %s has a type of an extension', parent);
  end if;

  drain := base44_build_partition(parent, target.table_name || '_drain', format('partition by range (%I)', target.key_column));
  for item in select * from jsonb_to_recordset(chosen) as c (name text, first_moment timestamptz, next_moment timestamptz) loop
    execute format('create table %I.%I partition of %s (constraint b44_bounds check (%s)) for values from (%L) to (%L)',
      target.schema_name, item.name, drain,
      base44_within(target.key_column, target.key_type, item.first_moment, item.next_moment), item.first_moment, item.next_moment);
    perform base44_describe_partition(
      target.relation, format('%I.%I', target.schema_name, item.name)::regclass, period, item.first_moment);
  end loop;
  execute format('create table %I.%I partition of %s default', target.schema_name, base44_drain_default(parent), drain);
  for item in select h.inhrelid::regclass as leaf from pg_inherits h where h.inhparent = drain loop
    perform base44_adopt_settings(target.relation, target.default_partition, item.leaf);
    -- It would hold the lock that the swap needs.
    execute format('alter table %s set (autovacuum_enabled = off, toast.autovacuum_enabled = off)', item.leaf);
  end loop;
  perform base44_adopt_access(
    target.default_partition, format('%I.%I', target.schema_name, base44_drain_default(parent))::regclass);
  execute format('create table %I.%I as select %s from only %s with no data',
    target.schema_name, target.table_name || '_drain_noted', base44_listed(base44_key_of(target.relation), ''), target.relation);
  noted := format('%I.%I', target.schema_name, target.table_name || '_drain_noted')::regclass;
  perform base44_make_mirror(
    format('%I.%I', target.schema_name, target.table_name || '_drain_mirror'), target.default_partition, drain, noted);
  select quote_ident(pg_get_userbyid(relowner)) into owner from pg_class where oid = target.relation;
  execute format('alter table %s owner to %s', noted, owner);
  execute format('alter function %I.%I() owner to %s', target.schema_name, target.table_name || '_drain_mirror', owner);
  return jsonb_build_object(
    'phase', 'built', 'form', base44_partition_form(target.relation), 'partitions', chosen, 'rows', total, 'copied', 0,
    'block', 0, 'blocks', 0, 'pages', 16, 'keys', 20, 'analyzed', '[]'::jsonb,
    'default', target.default_partition::oid::bigint,
    'autovacuum', (select option_value from pg_class, pg_options_to_table(reloptions)
                    where pg_class.oid = target.default_partition and option_name = 'autovacuum_enabled'));
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_default(parent text)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  select c.relname || '_drain' from base44_partitioning(parent) p join pg_class c on c.oid = p.default_partition
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_watch(parent text, state jsonb, patience integer)
 RETURNS jsonb
 LANGUAGE plpgsql
AS $function$
declare
  target constant record := base44_partitioning(parent);
  mirror constant text := format('%I.%I', target.schema_name, target.table_name || '_drain_mirror');
begin
  perform base44_lock_briefly(array[target.default_partition], array['share row exclusive'], patience);
  execute format('create trigger b44_drain_rows after insert or update or delete on %s for each row execute function %s()',
    target.default_partition, mirror);
  execute format('create trigger b44_drain_truncate after truncate on %s for each statement execute function %s()',
    target.default_partition, mirror);
  -- Also for what a replication or a restore writes.
  execute format('alter table %s enable always trigger b44_drain_rows, enable always trigger b44_drain_truncate',
    target.default_partition);
  return state || jsonb_build_object('phase', 'copying',
    'blocks', pg_relation_size(target.default_partition) / current_setting('block_size')::integer);
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_paced(number integer, taken double precision, wanted double precision, most integer)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE
AS $function$
  select greatest(1, least(most, 4 * number, (number * wanted / greatest(taken, 0.1))::integer))
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_copy(parent text, state jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
AS $function$
declare
  target constant record := base44_partitioning(parent);
  drain constant text := format('%I.%I', target.schema_name, target.table_name || '_drain');
  first_block constant bigint := (state ->> 'block')::bigint;
  pages constant integer := (state ->> 'pages')::integer;
  begun constant timestamptz := clock_timestamp();
  copied bigint;
begin
  -- The rows that changed meanwhile are there already. This lets alone, and so never waits for, those being changed.
  execute format('insert into %s (%s) select %s from only %s s where s.ctid >= %L and s.ctid < %L'
    ' and not exists (select from %s d where %s) on conflict (%s) do nothing',
    drain, base44_columns_of(target.relation), base44_columns_of(target.relation, 's.'), target.default_partition,
    format('(%s,0)', first_block), format('(%s,0)', first_block + pages),
    drain, base44_same_key(target.relation, 'd', 's'), base44_listed(base44_key_of(target.relation), ''));
  get diagnostics copied = row_count;
  return state || jsonb_build_object(
    'block', first_block + pages,
    'phase', case when first_block + pages < (state ->> 'blocks')::bigint then 'copying' else 'catching up' end,
    'copied', (state ->> 'copied')::bigint + copied,
    'pages', base44_paced(pages, extract(epoch from clock_timestamp() - begun) * 1000, 100, 8192));
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_catch_up(parent text, state jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
AS $function$
declare
  target constant record := base44_partitioning(parent);
  drain constant text := format('%I.%I', target.schema_name, target.table_name || '_drain');
  noted constant text := format('%I.%I', target.schema_name, target.table_name || '_drain_noted');
  key_columns constant name[] := base44_key_of(target.relation);
  most constant integer := (state ->> 'keys')::integer;
  begun constant timestamptz := clock_timestamp();
  places tid[];
  keys jsonb;
  held jsonb;
  gone jsonb;
  done bigint;
begin
  execute format('select array_agg(n.place), jsonb_agg(distinct to_jsonb(n.key)) from (select k.ctid as place, k as key from %s k limit %s) n',
    noted, most) into places, keys;
  if places is null then
    return state || jsonb_build_object('done', 0, 'left', false);
  end if;
  execute format('select jsonb_agg(to_jsonb(h)) from (select %s from jsonb_populate_recordset(null::%s, $1) k join only %s s on %s'
    ' for no key update of s skip locked) h',
    base44_listed(key_columns, 's.'), noted, target.default_partition, base44_same_key(target.relation, 's', 'k'))
    using keys into held;
  execute format('select jsonb_agg(to_jsonb(h)) from (select %s from jsonb_populate_recordset(null::%s, $1) k join %s d on %s'
    ' where not exists (select from only %s s where %s) for update of d skip locked) h',
    base44_listed(key_columns, 'd.'), noted, drain, base44_same_key(target.relation, 'd', 'k'),
    target.default_partition, base44_same_key(target.relation, 's', 'k'))
    using keys into gone;
  held := coalesce(held, '[]') || coalesce(gone, '[]');
  execute format('delete from %s d using jsonb_populate_recordset(null::%s, $1) k where %s',
    drain, noted, base44_same_key(target.relation, 'd', 'k')) using held;
  execute format('insert into %s (%s) select %s from jsonb_populate_recordset(null::%s, $1) k join only %s s on %s on conflict (%s) do nothing',
    drain, base44_columns_of(target.relation), base44_columns_of(target.relation, 's.'), noted, target.default_partition,
    base44_same_key(target.relation, 's', 'k'), base44_listed(key_columns, '')) using held;
  -- Notes of these keys, and of keys that are in neither place.
  execute format('delete from %s n where n.ctid = any ($2) and ('
    'exists (select from jsonb_populate_recordset(null::%1$s, $1) k where %s)'
    ' or not exists (select from only %s s where %s) and not exists (select from %s d where %s))',
    noted, base44_same_key(target.relation, 'k', 'n'), target.default_partition, base44_same_key(target.relation, 's', 'n'),
    drain, base44_same_key(target.relation, 'd', 'n')) using held, places;
  get diagnostics done = row_count;
  return state || jsonb_build_object('done', done, 'left', true,
    'keys', base44_paced(most, extract(epoch from clock_timestamp() - begun) * 1000, 30, 500));
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_constrain(parent text, state jsonb, patience integer)
 RETURNS jsonb
 LANGUAGE plpgsql
AS $function$
declare
  target constant record := base44_partitioning(parent);
  drain constant regclass := format('%I.%I', target.schema_name, target.table_name || '_drain')::regclass;
  successor constant regclass := format('%I.%I', target.schema_name, base44_drain_default(parent))::regclass;
  outside constant text := base44_drain_outside(target.relation, state);
  item record;
begin
  -- Where the planner's proof comes from that the new default partition has no row of another partition.
  if state ->> 'outside' is distinct from outside then
    perform base44_lock_briefly(array[successor], array['access exclusive'], patience);
    if state ->> 'outside' is not null then
      execute format('alter table %s drop constraint b44_outside', successor);
    end if;
    execute format('alter table %s add constraint b44_outside check (%s) not valid', successor, outside);
    return state || jsonb_build_object('outside', outside);
  end if;
  for item in
    select h.inhrelid::regclass as leaf,
           array_agg(format('alter table %s add constraint %I %s%s', h.inhrelid::regclass, c.conname, pg_get_constraintdef(c.oid),
                            case when c.convalidated then ' not valid' else '' end) order by c.conname) as statements
      from pg_inherits h
      join pg_constraint c on c.conrelid = target.relation
       and (c.contype = 'c' and not c.connoinherit or c.contype = 'f' and c.confrelid <> target.relation and c.conparentid = 0)
     where h.inhparent = drain
       and not exists (select from pg_constraint p where p.conrelid = h.inhrelid and p.conname = c.conname)
     group by h.inhrelid
     order by h.inhrelid
     limit 1
  loop
    perform base44_lock_briefly(
      base44_referenced_tables(target.relation) || item.leaf,
      array(select 'share row exclusive' from unnest(base44_referenced_tables(target.relation))) || 'access exclusive'::text, patience);
    for i in 1 .. cardinality(item.statements) loop
      execute item.statements[i];
    end loop;
    return state;
  end loop;
  begin
    for item in
      select c.conrelid::regclass as leaf, c.conname, c.conrelid <> lag(c.conrelid) over (order by h.inhrelid, c.conname) as another
        from pg_inherits h
        join pg_constraint c on c.conrelid = h.inhrelid and c.contype in ('c', 'f') and not c.convalidated
        left join pg_constraint p on p.conrelid = target.relation and p.conname = c.conname
       where h.inhparent = drain and (p.oid is null or p.convalidated)
       order by h.inhrelid, c.conname
    loop
      if item.another then
        return state;
      end if;
      execute format('alter table %s validate constraint %I', item.leaf, item.conname);
    end loop;
    if found then
      return state;
    end if;
  exception
    when foreign_key_violation or check_violation then
      -- A row was deleted by somebody who did not see its copy: the key is noted.
      return state || jsonb_build_object('phase', 'catching up');
  end;
  for item in
    select h.inhrelid::regclass as leaf from pg_inherits h
     where h.inhparent = drain and not state -> 'analyzed' @> to_jsonb(h.inhrelid::bigint)
     order by h.inhrelid
     limit 1
  loop
    execute format('analyze %s', item.leaf);
    return state || jsonb_build_object('analyzed', state -> 'analyzed' || to_jsonb(item.leaf::oid::bigint));
  end loop;
  return state || jsonb_build_object('phase', 'settling', 'older', null);
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_outside(parent regclass, state jsonb)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
  select base44_outside(parent, array_agg(p.first_moment), array_agg(p.next_moment))
    from jsonb_to_recordset(state -> 'partitions') as p (first_moment timestamptz, next_moment timestamptz)
$function$;

CREATE OR REPLACE FUNCTION public.base44_older_snapshots(noted regclass)
 RETURNS jsonb
 LANGUAGE sql
AS $function$
  select coalesce(jsonb_agg(jsonb_build_object('pid', a.pid, 'transaction', t.virtualtransaction, 'snapshot', a.backend_xmin::text,
                                               'name', coalesce(nullif(a.application_name, ''), a.backend_type))), '[]')
    from pg_stat_activity a
    join pg_locks t on t.pid = a.pid and t.locktype = 'virtualxid' and t.granted and t.virtualxid = t.virtualtransaction
   where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type <> 'autovacuum worker'
     and (a.backend_xmin is not null or exists (select from pg_locks n where n.pid = a.pid and n.locktype = 'relation'
                                                   and n.relation = noted and n.database = a.datid))
     and not exists (select from pg_stat_progress_vacuum p where p.pid = a.pid)
     and not exists (select from pg_stat_progress_create_index p where p.pid = a.pid)
     and not exists (select from pg_stat_progress_analyze p where p.pid = a.pid)
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_settle(parent text, state jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
AS $function$
declare
  target constant record := base44_partitioning(parent);
  noted constant regclass := format('%I.%I', target.schema_name, target.table_name || '_drain_noted')::regclass;
  older jsonb;
begin
  if base44_has_rows(noted, 'true') then
    return state || jsonb_build_object('phase', 'catching up');
  elsif state -> 'older' = 'null' then
    older := base44_older_snapshots(noted);
  else
    select coalesce(jsonb_agg(o), '[]') into older
      from jsonb_array_elements(state -> 'older') o
      join jsonb_array_elements(base44_older_snapshots(noted)) n
        on (o -> 'pid', o -> 'transaction', o -> 'snapshot') = (n -> 'pid', n -> 'transaction', n -> 'snapshot');
  end if;
  -- Notes may have come in with the last of those transactions: looked for again at the swap.
  return state || jsonb_build_object('older', older, 'phase', case when older = '[]' then 'verifying' else 'settling' end);
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_verify(parent text, state jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
AS $function$
declare
  target constant record := base44_partitioning(parent);
  drain constant text := format('%I.%I', target.schema_name, target.table_name || '_drain');
  noted constant text := format('%I.%I', target.schema_name, target.table_name || '_drain_noted');
  columns constant text := (
    select string_agg(quote_ident(attname), ', ' order by attnum)
      from pg_attribute where attrelid = target.relation and attnum > 0 and not attisdropped);
  found_notes boolean;
  equal boolean;
begin
  execute format($sql$
    select exists (select from %1$s), s.rows = d.rows and s.digest = d.digest
      from (select count(*) as rows, coalesce(sum(hashtextextended(row(%2$s)::text, 0)::numeric), 0) as digest from only %3$s) s,
           (select count(*) as rows, coalesce(sum(hashtextextended(row(%2$s)::text, 0)::numeric), 0) as digest from %4$s) d
    $sql$, noted, columns, target.default_partition, drain) into found_notes, equal;
  if found_notes then
    return state || jsonb_build_object('phase', 'catching up');
  elsif not equal then
    raise warning 'the copy of % differs from it: it was written to with triggers disabled. It is begun again', target.default_partition;
    return state || jsonb_build_object('phase', 'discarding');
  end if;
  return state || jsonb_build_object('phase', 'swapping');
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_swap(parent text, state jsonb, patience integer)
 RETURNS jsonb
 LANGUAGE plpgsql
 SET "TimeZone" TO 'UTC'
 SET "DateStyle" TO 'ISO, YMD'
AS $function$
declare
  target constant record := base44_partitioning(parent);
  default_name constant text := (select relname from pg_class where oid = target.default_partition);
  drain constant regclass := format('%I.%I', target.schema_name, target.table_name || '_drain')::regclass;
  noted constant regclass := format('%I.%I', target.schema_name, target.table_name || '_drain_noted')::regclass;
  successor constant regclass := format('%I.%I', target.schema_name, base44_drain_default(parent))::regclass;
  leaves constant regclass[] := array(select inhrelid::regclass from pg_inherits where inhparent = drain);
  incoming jsonb := '[]';
  tables regclass[];
  item record;
begin
  tables := base44_referenced_tables(target.relation)
    || array(select distinct k.referencing from base44_incoming_keys(target.relation) k where k.referencing <> target.relation)
    || target.relation || target.default_partition || drain || leaves;
  perform base44_lock_briefly(tables, array_fill('access exclusive'::text, array[cardinality(tables)]), patience);
  if base44_has_rows(noted, 'true') then
    return state || jsonb_build_object('phase', 'catching up');
  elsif state ->> 'outside' <> base44_drain_outside(target.relation, state) then
    return state || jsonb_build_object('phase', 'constraining');
  elsif state ->> 'form' <> base44_partition_form(target.relation) then
    return state || jsonb_build_object('phase', 'discarding');
  end if;
  for item in select * from base44_incoming_keys(target.relation) loop
    execute format('alter table %s drop constraint %I', item.referencing, item.constraint_name);
    incoming := incoming || jsonb_build_object('table', base44_qualified(item.referencing), 'name', item.constraint_name,
      'definition', item.definition, 'validated', item.validated);
  end loop;
  execute format('drop table %s', target.default_partition);
  for i in 1 .. cardinality(leaves) loop
    execute format('alter table %s detach partition %s', drain, leaves[i]);
  end loop;
  execute format('alter table %s attach partition %s default', target.relation, successor);
  for item in
    select * from jsonb_to_recordset(state -> 'partitions') as p (name text, first_moment timestamptz, next_moment timestamptz)
     order by p.first_moment
  loop
    execute format('alter table %s attach partition %I.%I for values from (%L) to (%L)',
      target.relation, target.schema_name, item.name, item.first_moment, item.next_moment);
    execute format('alter table %I.%I drop constraint b44_bounds', target.schema_name, item.name);
  end loop;
  execute format('alter table %s drop constraint b44_outside', successor);
  perform base44_rename_partition(successor, default_name);
  for item in select * from jsonb_to_recordset(incoming) as k ("table" text, name text, definition text, validated boolean) loop
    execute format('alter table %s add constraint %I %s%s', item.table, item.name, item.definition,
      case when item.validated then ' not valid' else '' end);
  end loop;
  return state || jsonb_build_object('phase', 'finishing', 'incoming', incoming,
    'leaves', (select jsonb_agg(l::oid::bigint) from unnest(leaves) l));
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_finish(parent text, state jsonb)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  target constant record := base44_partitioning(parent);
  item record;
begin
  for item in
    select l.oid::regclass as leaf from jsonb_array_elements_text(state -> 'leaves') e join pg_class l on l.oid = e::oid
  loop
    execute format('alter table %s reset (autovacuum_enabled, toast.autovacuum_enabled)', item.leaf);
    if state ->> 'autovacuum' is not null then
      execute format('alter table %s set (autovacuum_enabled = %L)', item.leaf, state ->> 'autovacuum');
    end if;
  end loop;
  for item in select * from jsonb_to_recordset(state -> 'incoming') as k ("table" text, name text, validated boolean) loop
    if item.validated and exists (
      select from pg_constraint where conrelid = to_regclass(item.table) and conname = item.name and not convalidated) then
      execute format('alter table %s validate constraint %I', item.table, item.name);
    end if;
  end loop;
  execute format('drop table %I.%I', target.schema_name, target.table_name || '_drain');
  execute format('drop table %I.%I', target.schema_name, target.table_name || '_drain_noted');
  execute format('drop function %I.%I()', target.schema_name, target.table_name || '_drain_mirror');
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_discard(parent text, state jsonb, patience integer)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
declare
  target constant record := base44_partitioning(parent);
  source constant regclass := (select oid from pg_class where oid = (state ->> 'default')::oid);
begin
  if exists (select from pg_trigger where tgrelid = source and tgname = 'b44_drain_rows') then
    perform base44_lock_briefly(array[source], array['access exclusive'], patience);
    execute format('drop trigger b44_drain_rows on %s', source);
    execute format('drop trigger b44_drain_truncate on %s', source);
  end if;
  execute format('drop table %I.%I', target.schema_name, target.table_name || '_drain');
  execute format('drop table %I.%I', target.schema_name, target.table_name || '_drain_noted');
  execute format('drop function %I.%I()', target.schema_name, target.table_name || '_drain_mirror');
end
$function$;

CREATE OR REPLACE FUNCTION public.base44_drain_step(parent text, period text, days date[] DEFAULT NULL::date[], patience integer DEFAULT 60, OUT phase text, OUT done bigint, OUT total bigint, OUT idle boolean, OUT waits_for text)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
declare
  target record := base44_partitioning(parent);
  caller_lock_timeout constant text := current_setting('lock_timeout');
  caller_deadlock_timeout constant text := current_setting('deadlock_timeout');
  drain regclass;
  state jsonb;
  reached jsonb;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise active_sql_transaction using message = 'rows are moved only with READ COMMITTED';
  end if;
  perform base44_lock_partitions(target.relation);
  -- No wait of ours may be long while rows are held; and only indexes tell which rows are copied without reading them all.
  perform set_config('lock_timeout', patience::text, true), set_config('enable_hashjoin', 'off', true),
          set_config('enable_mergejoin', 'off', true);
  -- Read anew, since what was read above may be what it was before we had our turn.
  target := base44_partitioning(parent);
  drain := to_regclass(format('%I.%I', target.schema_name, target.table_name || '_drain'));
  idle := false;
  if drain is null then
    reached := base44_drain_begin(parent, period, days);
    phase := coalesce(reached ->> 'phase', 'done');
  else
    state := obj_description(drain, 'pg_class')::jsonb;
    if state is null then
      raise duplicate_table using message = format('there is a table %s that is not of our making', drain);
    end if;
    phase := state ->> 'phase';
    if phase not in ('finishing', 'discarding') and state ->> 'form' <> base44_partition_form(target.relation) then
      phase := 'discarding';
    end if;
    case phase
      when 'built' then
        reached := base44_drain_watch(parent, state, patience);
      when 'copying' then
        reached := base44_drain_copy(parent, state);
      when 'catching up' then
        reached := base44_drain_catch_up(parent, state);
        if not (reached ->> 'left')::boolean then
          reached := reached || jsonb_build_object('phase', 'constraining');
        else
          idle := (reached ->> 'done')::bigint = 0;
        end if;
      when 'constraining' then
        reached := base44_drain_constrain(parent, state, patience);
      when 'settling' then
        reached := base44_drain_settle(parent, state);
        idle := reached ->> 'phase' = 'settling';
      when 'verifying' then
        reached := base44_drain_verify(parent, state);
      when 'swapping' then
        reached := base44_drain_swap(parent, state, patience);
      when 'finishing' then
        perform base44_drain_finish(parent, state);
      when 'discarding' then
        perform base44_drain_discard(parent, state, patience);
    end case;
    -- What the row lacks afterwards is the reason why the two ends differ.
    reached := reached - 'done' - 'left';
  end if;
  state := coalesce(reached, state);
  done := (state ->> 'copied')::bigint;
  total := (state ->> 'rows')::bigint;
  if idle then
    select string_agg(format('process %s (%s)', o ->> 'pid', o ->> 'name'), ', ') into waits_for
      from jsonb_array_elements(case when jsonb_typeof(state -> 'older') = 'array' then state -> 'older' else '[]' end) o;
    waits_for := coalesce(waits_for, 'whoever is changing the rows');
  end if;
  if reached is not null then
    execute format('comment on table %I.%I is %L', target.schema_name, target.table_name || '_drain', reached::text);
  end if;
  perform set_config('lock_timeout', caller_lock_timeout, true);
  if current_setting('deadlock_timeout') <> caller_deadlock_timeout then
    perform set_config('deadlock_timeout', caller_deadlock_timeout, true);
  end if;
end
$function$;
comment on function base44_drain_step is 'Does the next step of moving rows out of a default partition; to be called, each time in a transaction of its own, until phase is done';

CREATE OR REPLACE PROCEDURE public.drain_default_partition(IN parent text, IN period text DEFAULT 'month'::text, IN days date[] DEFAULT NULL::date[])
 LANGUAGE plpgsql
AS $procedure$
declare
  most_attempts constant integer := 300;
  step record;
  phase text;
  attempts integer := 0;
begin
  loop
    commit;
    set transaction isolation level read committed;
    begin
      select * into step from base44_drain_step(parent, period, days);
      attempts := case when step.idle then attempts + 1 else 0 end;
    exception
      when lock_not_available or deadlock_detected then
        attempts := attempts + 1;
        if attempts >= most_attempts then
          raise;
        end if;
    end;
    exit when step.phase = 'done';
    if step.phase is distinct from phase then
      phase := step.phase;
      raise notice '%: % (% of % rows copied)', parent, phase, step.done, step.total;
    end if;
    if attempts > 0 then
      commit;
      perform pg_sleep(least(0.05 * 1.5 ^ least(attempts, 20), 2) * (1 - random() / 2));
    end if;
  end loop;
end
$procedure$;
comment on function drain_default_partition is 'Moves the rows of a default partition to partitions of their months or years, while everybody reads and writes';

CREATE OR REPLACE PROCEDURE public.create_monthly_partition_online(IN target_month date)
 LANGUAGE plpgsql
AS $procedure$
begin
  call drain_default_partition('posts', 'month', array[target_month]);
end
$procedure$;
comment on function create_monthly_partition_online is 'Makes the partition of posts for a month (UTC) like create_monthly_partition, for any number of rows in the default partition, and without making others wait for it';

CREATE OR REPLACE FUNCTION public.base44_sha1(message bytea)
 RETURNS bytea
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE STRICT
 SET search_path TO 'pg_catalog'
AS $function$
declare
  mask constant bigint := 4294967295;
  padded bytea := message || '\x80'::bytea
    || decode(repeat('00', (119 - length(message) % 64) % 64), 'hex')
    || int8send(length(message)::bigint * 8);
  h0 bigint := 1732584193; h1 bigint := 4023233417; h2 bigint := 2562383102; h3 bigint := 271733878; h4 bigint := 3285377520;
  a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; t bigint;
  w bigint[];
begin
  for block in 0 .. length(padded) / 64 - 1 loop
    w := array_fill(0::bigint, array[80], array[0]);
    for i in 0 .. 15 loop
      w[i] := get_byte(padded, block * 64 + i * 4)::bigint * 16777216 + get_byte(padded, block * 64 + i * 4 + 1) * 65536
        + get_byte(padded, block * 64 + i * 4 + 2) * 256 + get_byte(padded, block * 64 + i * 4 + 3);
    end loop;
    for i in 16 .. 79 loop
      t := w[i - 3] # w[i - 8] # w[i - 14] # w[i - 16];
      w[i] := ((t << 1) | (t >> 31)) & mask;
    end loop;
    a := h0; b := h1; c := h2; d := h3; e := h4;
    for i in 0 .. 79 loop
      if i < 20 then f := (b & c) | ((~b & mask) & d); k := 1518500249;
      elsif i < 40 then f := b # c # d; k := 1859775393;
      elsif i < 60 then f := (b & c) | (b & d) | (c & d); k := 2400959708;
      else f := b # c # d; k := 3395469782;
      end if;
      t := ((((a << 5) | (a >> 27)) & mask) + f + e + k + w[i]) & mask;
      e := d; d := c; c := ((b << 30) | (b >> 2)) & mask; b := a; a := t;
    end loop;
    h0 := (h0 + a) & mask; h1 := (h1 + b) & mask; h2 := (h2 + c) & mask; h3 := (h3 + d) & mask; h4 := (h4 + e) & mask;
  end loop;
  return substr(int8send(h0), 5) || substr(int8send(h1), 5) || substr(int8send(h2), 5) || substr(int8send(h3), 5)
    || substr(int8send(h4), 5);
end
$function$;
comment on function base44_sha1 is 'The SHA-1 digest (20 bytes), for version 5 UUIDs';

CREATE OR REPLACE FUNCTION public.base44_name_uuid(name text)
 RETURNS uuid
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE STRICT
AS $function$
declare
  trimmed constant text := base44_trim(name);
  digest bytea;
begin
  if trimmed is null then
    return null;
  elsif trimmed <> name then
    return base44_uuid(trimmed);
  end if;
  digest := base44_sha1('\x6261736534348000800000000000b044'::bytea || convert_to(name, 'UTF8'));
  digest := set_byte(digest, 6, (get_byte(digest, 6) & 15) | 80);
  digest := set_byte(digest, 8, (get_byte(digest, 8) & 63) | 128);
  return encode(substr(digest, 1, 16), 'hex')::uuid;
end
$function$;
comment on function base44_name_uuid is 'The UUID of an id that is no ObjectId and no UUID: version 5; null for white space';

CREATE OR REPLACE FUNCTION public.base44_uuid(base44_id text)
 RETURNS uuid
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE STRICT
AS $function$
begin
  if length(base44_id) = 24 and translate(base44_id, '0123456789abcdefABCDEF', '') = '' then
    return (substr(base44_id, 1, 12) || '8' || substr(base44_id, 13, 3) || '8' || substr(base44_id, 16, 9) || '000b44')::uuid;
  elsif length(base44_id) = 36
      and translate(base44_id, '0123456789abcdefABCDEF', '0000000000000000000000') = '00000000-0000-0000-0000-000000000000' then
    return base44_id::uuid;
  end if;
  return base44_name_uuid(base44_id);
end
$function$;
comment on function base44_uuid is 'The UUID that stands for a Base44 id: ObjectIds can be read back, UUIDs pass through, other text is hashed';

CREATE OR REPLACE FUNCTION public.base44_object_id(id uuid)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN CASE WHEN ((id)::text ~ '^.{14}8.{4}8.{10}000b44$'::text) THEN translate(((substr((id)::text, 1, 13) || substr((id)::text, 16, 3)) || substr((id)::text, 21, 10)), '-'::text, ''::text) ELSE NULL::text END;
comment on function base44_object_id is 'The 24 hex digits of the Base44 ObjectId that a UUID was made from; null for other UUIDs';

CREATE OR REPLACE FUNCTION public.base44_encode_cursor(created_at timestamp with time zone, id uuid)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN translate(encode((int8send(((EXTRACT(epoch FROM created_at) * (1000000)::numeric))::bigint) || uuid_send(id)), 'base64'::text), '+/'::text, '-_'::text);
comment on function base44_encode_cursor is 'The place of a row in the order of (created_at, id), as opaque text of 32 characters';

CREATE OR REPLACE FUNCTION public.get_posts_paginated(limit_param integer DEFAULT 20, cursor_param text DEFAULT NULL::text)
 RETURNS TABLE(id uuid, title text, created_at timestamp with time zone, next_cursor text)
 LANGUAGE plpgsql
 STABLE
AS $function$
#variable_conflict use_column
declare
  cursor_bytes bytea;
  microseconds bigint;
  cursor_created_at timestamptz;
  cursor_id uuid;
begin
  if base44_trim(cursor_param) is null then
    return query
    select p.id, p.title, p.created_at, base44_encode_cursor(p.created_at, p.id)
      from posts p
     where p.published
     order by p.created_at desc, p.id desc
     limit limit_param;
    return;
  end if;
  if cursor_param !~ '^[A-Za-z0-9_-]{32}$' then
    raise exception 'not a cursor of get_posts_paginated' using errcode = 'invalid_parameter_value';
  end if;
  cursor_bytes := decode(translate(cursor_param, '-_', '+/'), 'base64');
  microseconds := ('x' || encode(substr(cursor_bytes, 1, 8), 'hex'))::bit(64)::bigint;
  cursor_id := encode(substr(cursor_bytes, 9), 'hex')::uuid;
  -- In two steps, as one factor is a double and would lose digits; days without a zone have 24 hours each.
  begin
    cursor_created_at := (timestamp 'epoch' + (microseconds / 86400000000) * interval '1 day'
      + (microseconds % 86400000000) * interval '1 microsecond') at time zone 'UTC';
  exception
    when data_exception then
      raise exception 'not a cursor of get_posts_paginated' using errcode = 'invalid_parameter_value';
  end;
  return query
  select p.id, p.title, p.created_at, base44_encode_cursor(p.created_at, p.id)
    from posts p
   where p.published
     and p.created_at <= cursor_created_at
     and (p.created_at, p.id) < (cursor_created_at, cursor_id)
   order by p.created_at desc, p.id desc
   limit limit_param;
end
$function$;
comment on function get_posts_paginated is "A page of published posts, newest first; the last row's next_cursor asks for the page after it";

CREATE OR REPLACE FUNCTION public.generate_post_slug(title text, user_id uuid DEFAULT NULL::uuid)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
AS $function$
declare
  base constant text := coalesce(base44_slug(title), 'post');
  candidate text := base;
  counter integer := 1;
begin
  while exists (select from post_slugs s where s.slug = candidate) loop
    counter := counter + 1;
    candidate := base || '-' || counter;
  end loop;
  return candidate;
end
$function$;
comment on function generate_post_slug is 'A slug that no post has yet, made from a title; user_id is kept for callers of the old signature';

CREATE OR REPLACE FUNCTION public.register_post_slugs()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_op = 'DELETE' then
    delete from post_slugs s using removed r where s.slug = r.slug and s.post_id = r.id and s.post_created_at = r.created_at;
  elsif tg_op = 'INSERT' and current_setting('b44.migrating', true) = 'on' then
    insert into post_slugs (slug, post_id, post_created_at) select a.slug, a.id, a.created_at from added a;
  elsif tg_op = 'INSERT' then
    insert into post_slugs (slug, post_id, post_created_at)
    select a.slug, a.id, a.created_at
      from added a
     where not exists (
       select from post_slugs s where s.slug = a.slug and s.post_id = a.id and s.post_created_at = a.created_at);
  else
    -- Most updates leave slug and key alone and cost a comparison only.
    delete from post_slugs s
     using (select slug, id, created_at from removed except select slug, id, created_at from added) r
     where s.slug = r.slug and s.post_id = r.id and s.post_created_at = r.created_at;
    insert into post_slugs (slug, post_id, post_created_at)
    select a.slug, a.id, a.created_at
      from (select slug, id, created_at from added except select slug, id, created_at from removed) a
     where not exists (
       select from post_slugs s where s.slug = a.slug and s.post_id = a.id and s.post_created_at = a.created_at);
  end if;
  return null;
end
$function$;
comment on function register_post_slugs is 'Keeps post_slugs equal to what posts holds';

CREATE OR REPLACE FUNCTION public.transform_user_role(base44_role text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN CASE lower(base44_trim(base44_role)) WHEN 'superuser'::text THEN 'admin'::text WHEN 'admin'::text THEN 'admin'::text WHEN 'editor'::text THEN 'moderator'::text WHEN 'moderator'::text THEN 'moderator'::text WHEN 'guest'::text THEN 'guest'::text ELSE 'user'::text END;
comment on function transform_user_role is 'The role in the new system for a role in Base44; user where it is unknown';

CREATE OR REPLACE FUNCTION public.transform_tags(base44_tags text)
 RETURNS text[]
 LANGUAGE plpgsql
 IMMUTABLE
AS $function$
declare
  listed constant text := base44_trim(base44_tags);
  elements jsonb;
  tag text;
  tags text[] := '{}';
begin
  if listed is null then
    return tags;
  elsif left(listed, 1) <> '[' then
    foreach tag in array string_to_array(listed, ',') loop
      tag := base44_trim(tag);
      if tag is not null then
        tags := tags || tag;
      end if;
    end loop;
    return tags;
  end if;
  elements := listed::jsonb;
  for i in 0 .. jsonb_array_length(elements) - 1 loop
    tag := base44_trim(elements ->> i);
    if tag is not null then
      tags := tags || tag;
    end if;
  end loop;
  return tags;
exception
  when data_exception or program_limit_exceeded or statement_too_complex then
    return null;
end
$function$;
comment on function transform_tags is 'Tags from a JSON array or a comma-separated list; null for a broken JSON array';

CREATE OR REPLACE FUNCTION public.validate_post_update()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if old.published and not new.published then
    if old.like_count > 100 then
      raise exception 'Cannot unpublish posts with more than 100 likes'
        using errcode = 'check_violation', table = 'posts', constraint = 'trg_validate_post_update';
    end if;
    new.published_at := null;
  elsif new.published and not old.published and new.published_at is null then
    new.published_at := now();
  end if;
  return new;
end
$function$;
comment on function validate_post_update is 'Keeps popular posts published, and published_at true to published';

CREATE OR REPLACE FUNCTION public.check_publish_permissions()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if not exists (select from users u where u.id = new.user_id and u.active and u.email_verified) then
    raise exception 'post % cannot be published: its author % is not active and verified', new.id, new.user_id
      using errcode = 'check_violation', table = 'posts', constraint = 'chk_posts_publish_permissions';
  end if;
  return new;
end
$function$;
comment on function check_publish_permissions is 'Lets only active and verified users publish';

CREATE OR REPLACE FUNCTION public.claim_post_slug()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
declare
  held text;
  base text;
begin
  new.slug := base44_trim(new.slug);
  if tg_op = 'UPDATE' then
    delete from post_slugs s where s.slug = old.slug and s.post_id = old.id and s.post_created_at = old.created_at;
  else
    -- An insert that ends in ON CONFLICT writes no row of its own and must claim nothing.
    select p.slug into held from posts p where p.id = new.id and p.created_at = new.created_at;
    if found then
      new.slug := coalesce(new.slug, held);
      return new;
    end if;
  end if;
  base := coalesce(base44_slug(coalesce(new.slug, new.title)), 'post');
  perform pg_advisory_xact_lock(hashtextextended('post slug ' || base, 44));
  loop
    if new.slug is null or exists (select from post_slugs s where s.slug = new.slug and s.post_id <> new.id) then
      new.slug := generate_post_slug(base, new.user_id);
    end if;
    -- A row that moves to another partition comes here a second time, with a claim of its own.
    insert into post_slugs as s (slug, post_id, post_created_at) values (new.slug, new.id, new.created_at)
    on conflict (slug) do update set post_created_at = excluded.post_created_at where s.post_id = excluded.post_id;
    exit when found;
    new.slug := null;
  end loop;
  return new;
end
$function$;
comment on function claim_post_slug is 'Gives a post a slug of its own: a wanted one if it is free, else one made of it or of the title';

CREATE OR REPLACE FUNCTION public.release_post_slug()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  delete from post_slugs s where s.slug = old.slug and s.post_id = old.id and s.post_created_at = old.created_at;
  return null;
end
$function$;
comment on function release_post_slug is 'Frees the slug of a deleted post';

CREATE OR REPLACE FUNCTION public.release_all_post_slugs()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  delete from post_slugs;
  return null;
end
$function$;
comment on function release_all_post_slugs is 'Frees all slugs when posts is truncated';

