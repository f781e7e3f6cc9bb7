-- Months and years (UTC), and which of them the partitions of a table are for.
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

comment on function b44.missing_partitions is 'First days of the periods that should have a partition and have none, from the earliest partition to some periods ahead';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.partitioning(text),
  b44.period(text, date),
  b44.partition_bounds(regclass),
  b44.within(name, regtype, timestamptz, timestamptz, boolean),
  b44.missing_partitions(text, text, integer)
from public;
