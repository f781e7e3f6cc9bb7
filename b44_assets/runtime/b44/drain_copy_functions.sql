-- Rows of a default partition copied beside the table, and the triggers that keep the copy up to date.
-- depends: b44/partition_functions

create or replace function b44.qualified(relation regclass) returns text
language sql stable
set search_path = public, pg_temp
as $$
  select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation
$$;

-- What is to be known of a table, and what its drain is made of: the copy with its own default partition, the notes, and
-- the trigger function.
create or replace function b44.draining(
  parent text, out relation regclass, out schema_name name, out table_name name, out key_column name, out key_type regtype,
  out default_partition regclass, out drain text, out successor text, out noted text, out mirror text
)
language sql stable
set search_path = public, pg_temp
as $$
  select p.*,
         format('%I.%I', p.schema_name, p.table_name || '_drain'),
         (select format('%I.%I', p.schema_name, d.relname || '_drain') from pg_class d where d.oid = p.default_partition),
         format('%I.%I', p.schema_name, p.table_name || '_drain_noted'),
         format('%I.%I', p.schema_name, p.table_name || '_drain_mirror')
    from b44.partitioning(parent) p
$$;

-- What the copies were made after. Where it changes meanwhile (a column, an index, a constraint), they are made anew.
create or replace function b44.partition_form(parent regclass) returns text
language sql stable
set search_path = public, pg_temp
as $$
  select md5(concat_ws('|',
    -- Of copies that an earlier version of these functions began: others could set off their mirror, or they took no note
    -- of what is done to themselves.
    'mirror 3',
    (select string_agg(concat_ws(',', a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated, a.attcollation,
                                 pg_get_expr(d.adbin, d.adrelid)), ';' order by a.attnum)
       from pg_attribute a
       left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = parent and a.attnum > 0 and not a.attisdropped),
    (select string_agg(i.indexrelid::text, ';' order by i.indexrelid) from pg_index i where i.indrelid = parent),
    (select string_agg(concat_ws(',', c.oid, c.convalidated), ';' order by c.oid)
       from pg_constraint c where c.conrelid = parent and c.contype in ('c', 'f') and c.confrelid <> parent),
    (select p.partdefid::text from pg_partitioned_table p where p.partrelid = parent)))
$$;

-- A condition that a row belongs to no partition but the default one, with what lies together put together.
create or replace function b44.outside(parent regclass, firsts timestamptz[], nexts timestamptz[]) returns text
language sql stable
set search_path = public, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $$
  with taken as (
    select b.first_moment, b.next_moment from b44.partition_bounds(parent) b
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
    from b44.partitioning(parent::text) p
   cross join runs r
   cross join lateral (select b44.within(p.key_column, p.key_type, r.first_moment, r.next_moment, true) as condition) w
$$;

-- A trigger function that does to the copy what is done to the default partition. What it finds not copied yet it notes,
-- since the copying may have taken an older version of it. It acts with its owner's rights, as whoever writes to the
-- table has none on the copy; so nobody else may make a trigger of it, and it does nothing for another table's trigger.
create or replace function b44.make_mirror(mirror text, source regclass, drain regclass, noted regclass) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  key_columns constant name[] := b44.key_of(source);
  plain_columns constant name[] := array(
    select a.attname from pg_attribute a
     where a.attrelid = source and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attname <> all (key_columns)
     order by a.attnum);
  insertion text;
begin
  insertion := format('insert into %s (%s) select %s from only %s s where (%s) = (%s) on conflict (%s) do %s',
    b44.qualified(drain), b44.columns_of(source), b44.columns_of(source, 's.'), b44.qualified(source),
    b44.listed(key_columns, 's.'), b44.listed(key_columns, 'new.'), b44.listed(key_columns, ''),
    coalesce('update set ' || (select string_agg(format('%1$I = excluded.%1$I', p), ', ') from unnest(plain_columns) p), 'nothing'));
  execute format($sql$
    create function %1$s() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    as $body$
    begin
      if tg_relid is distinct from to_regclass(%11$L) then
        raise insufficient_privilege using message = format('%%s is not the table that this function copies', tg_relid::regclass);
      elsif tg_op = 'TRUNCATE' then
        truncate %2$s;
        return null;
      end if;
      begin
        if tg_op = 'INSERT' then
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
      exception
        when serialization_failure then
          -- The copy changed after the snapshot of a transaction that may go on: with its row, nothing is the matter.
          if tg_op <> 'INSERT' then
            insert into %10$s values (%4$s);
          end if;
          if tg_op <> 'DELETE' then
            insert into %10$s values (%5$s);
          end if;
      end;
      return null;
    end
    $body$
    $sql$,
    mirror, b44.qualified(drain), insertion, b44.listed(key_columns, 'old.'), b44.listed(key_columns, 'new.'),
    (select string_agg(format('%1$I = s.%1$I', p), ', ')
       from unnest(case when cardinality(plain_columns) > 0 then plain_columns else key_columns end) p),
    b44.qualified(source), b44.listed(key_columns, 'd.'), b44.listed(key_columns, 's.'), b44.qualified(noted),
    b44.qualified(source));
  execute format('revoke all on function %s() from public', mirror);
end
$$;

create or replace function b44.note_function(parent text) returns text
language sql stable
set search_path = public, pg_temp
as $$
  select format('%I.%I', p.schema_name, p.table_name || '_drain_note') from b44.partitioning(parent) p
$$;

-- Triggers that note what others do to the copy itself, such as its owner, who has every right to: the keys of what is changed
-- in one of its partitions, and of what is done to the whole of it that it was done, by a note without a key, after which
-- both sides are compared again. A TRUNCATE shows by the files. Our own statements name the whole of it, and are known by
-- the functions that they come from.
create or replace function b44.make_notes(parent text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.draining(parent);
  note constant text := b44.note_function(parent);
  drain constant regclass := target.drain::regclass;
  keys constant text := b44.listed(b44.key_of(target.relation), '');
  owner constant text := (select quote_ident(pg_get_userbyid(relowner)) from pg_class where oid = target.relation);
  item record;
begin
  execute format($sql$
    create function %1$s() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    as $body$
    #variable_conflict use_column
    declare
      origin text;
    begin
      if tg_relid = to_regclass(%2$L) then
        get diagnostics origin = pg_context;
        if strpos(origin, %3$L) = 0 and strpos(origin, 'b44.drain_step(') = 0 then
          insert into %4$s default values;
        end if;
        return null;
      elsif not exists (select from pg_inherits h where h.inhrelid = tg_relid and h.inhparent = to_regclass(%2$L)) then
        raise insufficient_privilege using message = format('%%s is not part of what this function looks after', tg_relid::regclass);
      end if;
      if tg_op <> 'INSERT' then
        insert into %4$s select %5$s from gone;
      end if;
      if tg_op <> 'DELETE' then
        insert into %4$s select %5$s from come;
      end if;
      return null;
    end
    $body$
    $sql$,
    note, b44.qualified(drain), quote_ident(target.table_name || '_drain_mirror') || '()', target.noted, keys);
  execute format('revoke all on function %s() from public', note);
  execute format('alter function %s() owner to %s', note, owner);
  execute format('create trigger b44_drain_whole before insert or update or delete on %s for each statement execute function %s()',
    drain, note);
  execute format('alter table %s enable always trigger b44_drain_whole', drain);
  for item in
    select h.inhrelid::regclass as leaf, e.event, e.tables
      from pg_inherits h
     cross join (values ('insert', 'new table as come'), ('update', 'old table as gone new table as come'),
                        ('delete', 'old table as gone')) e (event, tables)
     where h.inhparent = drain
  loop
    execute format('create trigger b44_drain_%1$s after %1$s on %2$s referencing %3$s for each statement execute function %4$s()',
      item.event, item.leaf, item.tables, note);
    execute format('alter table %s enable always trigger b44_drain_%s', item.leaf, item.event);
  end loop;
end
$$;

create or replace function b44.listed(names name[], prefix text) returns text
language sql immutable
set search_path = public, pg_temp
as $$
  select string_agg(prefix || quote_ident(n), ', ' order by place) from unnest(names) with ordinality as u (n, place)
$$;

-- Builds the copies, empty; null where there is nothing to move.
create or replace function b44.drain_begin(parent text, period text, days date[]) returns jsonb
language plpgsql
set search_path = public, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $$
declare
  -- Attaching one takes some milliseconds under the lock; the others have their turn afterwards.
  most_periods constant integer := 6;
  target constant record := b44.draining(parent);
  item record;
  total bigint;
  chosen jsonb;
  ties text;
  drain regclass;
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
      select first_day::date, rows from counted where first_day between '0001-01-01' and '9999-12-31' and $1 is null
      union all
      select distinct on (1) (p.first_moment at time zone 'UTC')::date, coalesce(c.rows, 0)
        from unnest($1) d
       cross join b44.period(%1$L, d) p
        left join counted c on c.first_day = p.first_moment at time zone 'UTC'
    ),
    named as (
      select p.first_moment, p.next_moment, %4$L || p.suffix as name, w.rows
        from wanted w
       cross join b44.period(%1$L, w.first_day) p
    ),
    free as (
      select n.* from named n
       where to_regclass(format('%%I.%%I', %5$L::text, n.name)) is null
         and not exists (select from b44.partition_bounds(%6$L) b
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

  ties := b44.tied_to(target.default_partition);
  if ties is not null then
    raise dependent_objects_still_exist using message = format(
      '%s has what another default partition would not have: %s', target.default_partition, ties);
  end if;
  for item in select * from b44.incoming_keys(target.relation) loop
    if item.referencing_kind = 'p' and current_setting('server_version_num')::integer < 180000 then
      raise feature_not_supported using message = format(
        'foreign key %s of the partitioned table %s leads to %s and could not be added again without a long lock',
        item.constraint_name, item.referencing, parent);
    end if;
  end loop;
  if exists (
    select from unnest(b44.key_of(target.relation)) k join pg_attribute a on a.attrelid = target.relation and a.attname = k
      join pg_type t on t.oid = a.atttypid where t.typnamespace <> 'pg_catalog'::regnamespace) then
    raise feature_not_supported using message = format('the primary key of %s has a type of an extension', parent);
  end if;

  drain := b44.build_partition(parent, target.table_name || '_drain', format('partition by range (%I)', target.key_column));
  for item in select * from jsonb_to_recordset(chosen) as c (name text, first_moment timestamptz, next_moment timestamptz) loop
    execute format('create table %I.%I partition of %s (constraint b44_bounds check (%s)) for values from (%L) to (%L)',
      target.schema_name, item.name, drain,
      b44.within(target.key_column, target.key_type, item.first_moment, item.next_moment), item.first_moment, item.next_moment);
    perform b44.describe_partition(
      target.relation, format('%I.%I', target.schema_name, item.name)::regclass, period, item.first_moment);
  end loop;
  execute format('create table %s partition of %s default', target.successor, drain);
  for item in select h.inhrelid::regclass as leaf from pg_inherits h where h.inhparent = drain loop
    perform b44.adopt_settings(target.relation, target.default_partition, item.leaf);
    -- It would hold the lock that the swap needs.
    execute format('alter table %s set (autovacuum_enabled = off, toast.autovacuum_enabled = off)', item.leaf);
  end loop;
  perform b44.adopt_access(target.default_partition, target.successor::regclass);
  execute format('create table %s as select %s from only %s with no data',
    target.noted, b44.listed(b44.key_of(target.relation), ''), target.relation);
  perform b44.make_mirror(target.mirror, target.default_partition, drain, target.noted::regclass);
  select quote_ident(pg_get_userbyid(relowner)) into owner from pg_class where oid = target.relation;
  execute format('alter table %s owner to %s', target.noted, owner);
  execute format('alter function %s() owner to %s', target.mirror, owner);
  perform b44.make_notes(parent);
  return jsonb_build_object(
    'phase', 'built', 'form', b44.partition_form(target.relation), 'partitions', chosen, 'rows', total, 'copied', 0,
    'block', 0, 'blocks', 0, 'pages', 16, 'keys', 20, 'analyzed', '[]'::jsonb,
    'default', target.default_partition::oid::bigint,
    'autovacuum', (select option_value from pg_class, pg_options_to_table(reloptions)
                    where pg_class.oid = target.default_partition and option_name = 'autovacuum_enabled'));
end
$$;

-- From now on all changes go to the copy, too.
create or replace function b44.drain_watch(parent text, state jsonb, patience integer) returns jsonb
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.draining(parent);
begin
  perform b44.lock_briefly(array[target.default_partition], array['share row exclusive'], patience);
  execute format('create trigger b44_drain_rows after insert or update or delete on %s for each row execute function %s()',
    target.default_partition, target.mirror);
  execute format('create trigger b44_drain_truncate after truncate on %s for each statement execute function %s()',
    target.default_partition, target.mirror);
  -- Also for what a replication or a restore writes.
  execute format('alter table %s enable always trigger b44_drain_rows, enable always trigger b44_drain_truncate',
    target.default_partition);
  return state || jsonb_build_object('phase', 'copying',
    'blocks', pg_relation_size(target.default_partition) / current_setting('block_size')::integer);
end
$$;

-- A number that is to take `wanted` milliseconds.
create or replace function b44.paced(
  number integer, taken double precision, wanted double precision, most integer
) returns integer
language sql immutable
set search_path = public, pg_temp
as $$
  select greatest(1, least(most, 4 * number, (number * wanted / greatest(taken, 0.1))::integer))
$$;

-- Copies some pages of the default partition.
create or replace function b44.drain_copy(parent text, state jsonb) returns jsonb
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.draining(parent);
  first_block constant bigint := (state ->> 'block')::bigint;
  pages constant integer := (state ->> 'pages')::integer;
  begun constant timestamptz := clock_timestamp();
  copied bigint;
begin
  -- The rows that changed meanwhile are there already. This lets alone, and so never waits for, those being changed.
  execute format('insert into %s (%s) select %s from only %s s where s.ctid >= %L and s.ctid < %L'
    ' and not exists (select from %s d where %s) on conflict (%s) do nothing',
    target.drain, b44.columns_of(target.relation), b44.columns_of(target.relation, 's.'), target.default_partition,
    format('(%s,0)', first_block), format('(%s,0)', first_block + pages),
    target.drain, b44.same_key(target.relation, 'd', 's'), b44.listed(b44.key_of(target.relation), ''));
  get diagnostics copied = row_count;
  return state || jsonb_build_object(
    'block', first_block + pages,
    'phase', case when first_block + pages < (state ->> 'blocks')::bigint then 'copying' else 'catching up' end,
    'copied', (state ->> 'copied')::bigint + copied,
    'pages', b44.paced(pages, extract(epoch from clock_timestamp() - begun) * 1000, 100, 8192));
end
$$;

-- Looks again at the rows that were noted.
create or replace function b44.drain_catch_up(parent text, state jsonb) returns jsonb
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.draining(parent);
  key_columns constant name[] := b44.key_of(target.relation);
  most constant integer := (state ->> 'keys')::integer;
  begun constant timestamptz := clock_timestamp();
  places tid[];
  keys jsonb;
  held jsonb;
  gone jsonb;
  done bigint;
begin
  execute format('select array_agg(n.place), jsonb_agg(distinct n.key) from (select k.ctid as place, to_jsonb(k.*) as key from %s k limit %s) n',
    target.noted, most) into places, keys;
  if places is null then
    return state || jsonb_build_object('done', 0, 'left', false);
  end if;
  execute format('select jsonb_agg(to_jsonb(h.*)) from (select %s from jsonb_populate_recordset(null::%s, $1) k join only %s s on %s'
    ' for no key update of s skip locked) h',
    b44.listed(key_columns, 's.'), target.noted, target.default_partition, b44.same_key(target.relation, 's', 'k'))
    using keys into held;
  execute format('select jsonb_agg(to_jsonb(h.*)) from (select %s from jsonb_populate_recordset(null::%s, $1) k join %s d on %s'
    ' where not exists (select from only %s s where %s) for update of d skip locked) h',
    b44.listed(key_columns, 'd.'), target.noted, target.drain, b44.same_key(target.relation, 'd', 'k'),
    target.default_partition, b44.same_key(target.relation, 's', 'k'))
    using keys into gone;
  held := coalesce(held, '[]') || coalesce(gone, '[]');
  execute format('delete from %s d using jsonb_populate_recordset(null::%s, $1) k where %s',
    target.drain, target.noted, b44.same_key(target.relation, 'd', 'k')) using held;
  execute format('insert into %s (%s) select %s from jsonb_populate_recordset(null::%s, $1) k join only %s s on %s on conflict (%s) do nothing',
    target.drain, b44.columns_of(target.relation), b44.columns_of(target.relation, 's.'), target.noted, target.default_partition,
    b44.same_key(target.relation, 's', 'k'), b44.listed(key_columns, '')) using held;
  -- Notes of these keys, and of keys that are in neither place.
  execute format('delete from %s n where n.ctid = any ($2) and ('
    'exists (select from jsonb_populate_recordset(null::%1$s, $1) k where %s)'
    ' or not exists (select from only %s s where %s) and not exists (select from %s d where %s))',
    target.noted, b44.same_key(target.relation, 'k', 'n'), target.default_partition, b44.same_key(target.relation, 's', 'n'),
    target.drain, b44.same_key(target.relation, 'd', 'n')) using held, places;
  get diagnostics done = row_count;
  return state || jsonb_build_object('done', done, 'left', true,
    'keys', b44.paced(most, extract(epoch from clock_timestamp() - begun) * 1000, 30, 500));
end
$$;

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.qualified(regclass),
  b44.draining(text),
  b44.partition_form(regclass),
  b44.outside(regclass, timestamptz[], timestamptz[]),
  b44.make_mirror(text, regclass, regclass, regclass),
  b44.note_function(text),
  b44.make_notes(text),
  b44.listed(name[], text),
  b44.drain_begin(text, text, date[]),
  b44.drain_watch(text, jsonb, integer),
  b44.paced(integer, double precision, double precision, integer),
  b44.drain_copy(text, jsonb),
  b44.drain_catch_up(text, jsonb)
from public;
