-- Rows of a default partition, copied to where they belong and taken out.
-- depends: b44/upgrade_from_0_1

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

-- Copies rows that still are in use, and notes which versions of them it took. Refuses more than `most_rows`.
create or replace function b44.copy_rows(source regclass, copy regclass, within text, most_rows bigint, hint text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  noted constant text := 'b44_copied_' || copy::oid;
  taken bigint;
begin
  execute format('create temporary table %I on commit drop as select ctid as b44_place, xmin as b44_version, %s from only %s where %s limit %s',
    noted, (select string_agg(quote_ident(k), ', ') from unnest(b44.key_of(source)) k), source, within, most_rows + 1);
  get diagnostics taken = row_count;
  if taken > most_rows then
    raise object_not_in_prerequisite_state using hint = hint, message = format(
      'more than %s rows of %s cannot be moved while others wait', most_rows, source);
  end if;
  execute format('analyze pg_temp.%I', noted);
  -- ATTACH believes it, and need not look.
  execute format('alter table %s add constraint b44_bounds check (%s)', copy, within);
  execute format('insert into %s (%s) select %s from only %s s join pg_temp.%I n on n.b44_place = s.ctid and n.b44_version = s.xmin',
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
    'select from only %s s where s.ctid = n.b44_place and s.xmin = n.b44_version)',
    copy, noted, b44.same_key(source, 'c', 'n'), source);
  execute format('insert into %s (%s) select %s from only %s s where %s and not exists ('
    'select from pg_temp.%I n where n.b44_place = s.ctid and n.b44_version = s.xmin)',
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

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.key_of(regclass),
  b44.columns_of(regclass, text),
  b44.same_key(regclass, text, text),
  b44.has_rows(regclass, text),
  b44.copy_rows(regclass, regclass, text, bigint, text),
  b44.copy_changes(regclass, regclass, text),
  b44.delete_rows(regclass, text)
from public;
