-- Exported text to typed values: null where the text does not fit the type, so that a mapping can name the reason.
-- depends: b44/text_functions, b44/parser_functions, migration/schemas

-- ISO 8601 as Base44, its apps and spreadsheets write it; without a zone it is UTC. Not PostgreSQL's own reading, which
-- takes 'yesterday' and 'infinity': the form is checked here, the calendar by the parser. Fractions beyond microseconds are
-- rounded.
create or replace function migration.as_unusual_timestamp(value text) returns timestamptz
language plpgsql stable strict parallel safe
set search_path = public, pg_temp
as $$
declare
  point constant text := btrim(value, E' \t\r\n');
begin
  if point !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?( ?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?))?)?$'
      or not b44.is_timestamp(point) then  -- 31 February, hour 25
    return null;
  elsif substr(point, 17) ~ '[Zz+-]' then
    return point::timestamptz;
  end if;
  return point::timestamp at time zone 'UTC';
end
$$;

-- The text as PostgreSQL reads it where it can be of a usual form; the zone is left aside.
create or replace function migration.to_timestamp(value text) returns timestamp
language sql stable parallel safe
return case when length(value) in (16, 19, 20, 24, 26) and b44.is_timestamp(value) then value::timestamp end;

-- The usual forms are recognised by writing the time back, which takes half the time of a regular expression.
create or replace function migration.to_timestamp_utc(value text, naive timestamp) returns timestamptz
language sql stable parallel safe
return case
  when to_char(naive, case length(value)
      when 26 then 'YYYY-MM-DD"T"HH24:MI:SS.US'
      when 24 then 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
      when 20 then 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
      when 19 then 'YYYY-MM-DD"T"HH24:MI:SS'
      when 16 then 'YYYY-MM-DD"T"HH24:MI'
    end) = value then naive at time zone 'UTC'
  else migration.as_unusual_timestamp(value)
end;

-- As quick as a call can be: PL/pgSQL, without a search_path to set for each. The only names in it are qualified, and those of
-- the SQL functions, which it puts in the place of their calls, were bound when these were made.
create or replace function migration.as_timestamp(value text) returns timestamptz
language plpgsql stable strict parallel safe
as $$
declare
  naive constant timestamp := migration.to_timestamp(value);
begin return migration.to_timestamp_utc(value, naive); end
$$;

-- [0-9] rather than \d, which in a Unicode locale takes digits of every script; numeric does not.
create or replace function migration.as_signed_integer(value text) returns integer
language plpgsql immutable strict parallel safe
set search_path = public, pg_temp
as $$
begin
  if value ~ E'^[ \t\r\n]*[+-]?[0-9]{1,18}([.]0*)?[ \t\r\n]*$' and value::numeric between -2147483648 and 2147483647 then
    return value::numeric::integer;
  end if;
  return null;
end
$$;

-- PostgreSQL puts this in the place of a call, so that the usual form, digits alone, costs no call at all.
create or replace function migration.as_integer(value text) returns integer
language sql immutable parallel safe
return case
  when length(value) < 10 and value <> '' and translate(value, '0123456789', '') = '' then value::integer
  else migration.as_signed_integer(value)
end;

create or replace function migration.as_bigint(value text) returns bigint
language plpgsql immutable strict parallel safe
set search_path = public, pg_temp
as $$
begin
  if length(value) <= 100 and value ~ E'^[ \t\r\n]*[+-]?[0-9]+([.]0*)?[ \t\r\n]*$'
      and value::numeric between -9223372036854775808 and 9223372036854775807 then
    return value::numeric::bigint;
  end if;
  return null;
end
$$;

-- As JSON writes numbers, and with a leading + or zeros. What numeric can hold depends on digits and exponent together; both are
-- bounded far below it, and far above what a double can.
create or replace function migration.as_numeric(value text) returns numeric
language plpgsql immutable strict parallel safe
set search_path = public, pg_temp
as $$
begin
  if length(value) <= 1000 and value ~ E'^[ \t\r\n]*[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]{1,3})?[ \t\r\n]*$' then
    return value::numeric;
  end if;
  return null;
end
$$;

-- A day, also where it is written as its midnight; a time of day besides would be lost.
create or replace function migration.as_date(value text) returns date
language plpgsql immutable strict parallel safe
set search_path = public, pg_temp
as $$
declare
  point constant text := btrim(value, E' \t\r\n');
  first_of_month date;
begin
  if point ~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])([T ]00:00(:00([.]0+)?)?( ?([Zz]|[+-]00(:?00)?))?)?$'
      and point !~ '^0000' then
    first_of_month := make_date(substr(point, 1, 4)::integer, substr(point, 6, 2)::integer, 1);
    if substr(point, 9, 2)::integer <= extract(day from first_of_month + interval '1 month' - interval '1 day') then
      return first_of_month + substr(point, 9, 2)::integer - 1;
    end if;
  end if;
  return null;
end
$$;

create or replace function migration.as_time(value text) returns time
language plpgsql stable strict parallel safe
set search_path = public, pg_temp
as $$
declare
  point constant text := btrim(value, E' \t\r\n');
begin
  if point ~ '^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6}0*)?)?$' then
    return substr(point, 1, 15)::time;
  end if;
  return null;
end
$$;

-- From a JSON array of texts, numbers and booleans; null where it holds anything else, which an array of texts would not tell apart.
create or replace function migration.as_text_array(value text) returns text[]
language plpgsql immutable strict parallel safe
set search_path = public, pg_temp
as $$
declare
  items jsonb;
begin
  if b44.is_json(value) then
    items := value::jsonb;
    if jsonb_typeof(items) = 'array' then
      if not exists (select from jsonb_array_elements(items) i where jsonb_typeof(i) in ('array', 'object')) then
        return array(select i.item from jsonb_array_elements_text(items) with ordinality i (item, place) order by i.place);
      end if;
    end if;
  end if;
  return null;
end
$$;

-- From a JSON array of ids.
create or replace function migration.as_uuid_array(value text) returns uuid[]
language plpgsql immutable strict parallel safe
set search_path = public, pg_temp
as $$
declare
  ids constant text[] := migration.as_text_array(value);
begin
  if ids is null then
    return null;
  end if;
  return array(select base44_uuid(i.id) from unnest(ids) with ordinality as i (id, place) order by i.place);
end
$$;

-- Hardly a record has one: ObjectIds in lower case and UUIDs are told from others first.
create or replace function migration.other_ids(ids text[]) returns jsonb
language plpgsql immutable parallel safe
set search_path = public, pg_temp
as $$
declare
  id text;
  made uuid;
  others jsonb;
begin
  foreach id in array coalesce(ids, '{}') loop
    if length(id) <> 24 or ltrim(convert_to(id, 'UTF8'), '0123456789abcdef'::bytea) <> '' then
      made := base44_uuid(id);
      if made is not null and made::text <> id then
        others := coalesce(others, '{}') || jsonb_build_object(made::text, id);
      end if;
    end if;
  end loop;
  return others;
end
$$;

create or replace function migration.as_boolean(value text) returns boolean
language sql immutable parallel safe
return case
  when lower(btrim(value, E' \t\r\n')) in ('true', 't', 'yes', '1') then true
  when lower(btrim(value, E' \t\r\n')) in ('false', 'f', 'no', '0') then false
end;

-- Who made a record, as Base44 names them. A program's word for nobody is no name, and no id.
create or replace function migration.as_creator(value text) returns text
language sql immutable parallel safe
return case when lower(btrim(value, E' \t\r\n')) not in ('null', 'undefined') then value end;

-- Null also for what jsonb cannot hold (\u0000).
create or replace function migration.as_jsonb(value text) returns jsonb
language plpgsql immutable strict parallel safe
set search_path = public, pg_temp
as $$
begin
  if b44.is_json(value) then
    return value::jsonb;
  end if;
  return null;
end
$$;

-- Whether a key stands more than once in an object of the text, or in one within it, of which jsonb keeps the last value alone.
-- Version 15 cannot ask the parser; there, as many colons in the text as in what became of it tell that no key was lost.
do $do$
begin
  if current_setting('server_version_num')::integer >= 160000 then
    create or replace function migration.repeats_keys(value text, became jsonb) returns boolean
    language plpgsql immutable strict parallel safe
    set search_path = public, pg_temp
    as $$
    begin
      return length(value) - length(replace(value, ':', '')) > 1 and value is not json with unique keys;
    end
    $$;
  else
    create or replace function migration.repeats_keys(value text, became jsonb) returns boolean
    language plpgsql immutable strict parallel safe
    set search_path = public, pg_temp
    as $$
    begin
      if length(value) - length(replace(value, ':', '')) < 2
          or strpos(value, E'\\u') = 0
          and length(value) - length(replace(value, ':', '')) = length(became::text) - length(replace(became::text, ':', '')) then
        return false;
      end if;
      return exists (
        with recursive parts (part) as (
          select value::json
          union all
          select inner_part.value
            from parts
           cross join lateral (
             select o.value from json_each(case json_typeof(part) when 'object' then part end) o
             union all
             select a.value from json_array_elements(case json_typeof(part) when 'array' then part end) a) inner_part
        )
        select from parts
         where (select count(*) > count(distinct k) from json_object_keys(case json_typeof(part) when 'object' then part end) k)
      );
    end
    $$;
  end if;
end
$do$;

-- An ObjectId begins with the second in which it was made.
create or replace function migration.object_id_time(base44_id text) returns timestamptz
language sql immutable parallel safe
return case
  when length(base44_id) = 24 and translate(base44_id, '0123456789abcdefABCDEF', '') = '' then to_timestamp(('x' || lpad(substr(base44_id, 1, 8), 16, '0'))::bit(64)::bigint)
end;

-- What two records of one id share: hex ids are the same in upper and lower case, others are not. Empty for a blank id.
create or replace function migration.id_key_of_other(base44_id text) returns text
language plpgsql immutable parallel safe
set search_path = public, pg_temp
as $$
declare
  trimmed constant text := coalesce(b44.trim(base44_id), '');
begin
  if trimmed <> lower(trimmed) and length(trimmed) in (24, 36)
      and translate(trimmed, '0123456789abcdefABCDEF-', '') = '' then
    return lower(trimmed);
  end if;
  return trimmed;
end
$$;

create or replace function migration.to_id_key(base44_id text) returns text
language sql stable parallel safe
return case
  when length(base44_id) = 24 and ltrim(convert_to(base44_id, 'UTF8'), '0123456789abcdef'::bytea) = '' then base44_id
  else migration.id_key_of_other(base44_id)
end;

-- Without a search_path, as migration.as_timestamp.
create or replace function migration.id_key(base44_id text) returns text
language plpgsql immutable parallel safe
as $$ begin return migration.to_id_key(base44_id); end $$;

-- One line of the repairs ledger, as a mapping gives it: null where nothing was repaired.
create or replace function migration.repair(repaired boolean, column_name text, rule text, original text, replacement text)
returns jsonb
language sql stable parallel safe
return case
  when repaired then jsonb_build_object(
    'column_name', column_name, 'rule', rule, 'original', original, 'replacement', replacement)
end;

-- Version 15 cannot ask the parser without an exception to catch, and no parallel worker may catch one.
do $$
begin
  if current_setting('server_version_num')::integer < 160000 and to_regprocedure('migration.as_timestamp(text)') is not null then
    alter function migration.as_timestamp(text) parallel unsafe;
    alter function migration.to_timestamp(text) parallel unsafe;
    alter function migration.to_timestamp_utc(text, timestamp) parallel unsafe;
    alter function migration.as_unusual_timestamp(text) parallel unsafe;
    alter function migration.as_jsonb(text) parallel unsafe;
    alter function migration.as_text_array(text) parallel unsafe;
    alter function migration.as_uuid_array(text) parallel unsafe;
  end if;
end
$$;

-- The same for a value that its type cannot hold, which is null then.
create or replace function migration.unfit(original text, became_null boolean, column_name text, rule text) returns jsonb
language sql stable parallel safe
return case
  when original is not null and became_null then jsonb_build_object(
    'column_name', column_name, 'rule', rule, 'original', original, 'replacement', null)
end;

-- A B-tree takes keys of 2,704 bytes, less what else is in the key. Whether a longer text still fits after compression is not
-- asked: it is the same for every record, whichever indexes there are.
create or replace function migration.too_long(value text, column_name text) returns text
language sql immutable parallel safe
return case when octet_length(value) > 2500 then 'too_long:' || column_name end;

-- Fields that have no column of their own, less the blank ones.
create or replace function migration.present_fields(fields jsonb) returns jsonb
language sql immutable parallel safe
return coalesce((select jsonb_object_agg(f.key, f.value) from jsonb_each_text(fields) f
                  where b44.present(f.value) is not null), '{}');

comment on function migration.as_timestamp(text) is 'A point in time from ISO 8601 text, UTC where no zone is given; null where it is none';
comment on function migration.to_timestamp(text) is 'A point in time in a usual form, without regard to a zone';
comment on function migration.to_timestamp_utc(text, timestamp) is 'What migration.as_timestamp returns, from the text and what PostgreSQL reads in it';
comment on function migration.as_unusual_timestamp(text) is 'A point in time in one of the forms of ISO 8601 that exports seldom use';
comment on function migration.as_signed_integer(text) is 'A 32-bit integer from text that may have a sign or a fraction of zeros';
comment on function migration.as_integer(text) is 'A 32-bit integer from text; null where it does not fit';
comment on function migration.as_bigint(text) is 'A 64-bit integer from text that may have a sign or a fraction of zeros; null where it does not fit';
comment on function migration.as_numeric(text) is 'A number of any precision from text; null where it is none';
comment on function migration.as_date(text) is 'A day from ISO 8601 text, also as its midnight; null where it is none';
comment on function migration.as_time(text) is 'A time of day (HH:MM, seconds and their fraction may follow) from text; null where it is none';
comment on function migration.as_text_array(text) is 'Texts from a JSON array of texts, numbers and booleans; null where it is none';
comment on function migration.as_uuid_array(text) is 'The identifiers of the Base44 ids in a JSON array; null where it is none';
comment on function migration.other_ids(text[]) is
  'Those of some Base44 ids that cannot be read back from their UUIDs, by UUID; null where all can';
comment on function migration.as_boolean(text) is 'true/t/yes/1 and false/f/no/0 in any case; null otherwise';
comment on function migration.as_creator(text) is 'Who made a record: the text as it is; null for the words null and undefined';
comment on function migration.as_jsonb(text) is 'JSON from text; null where it is none';
comment on function migration.repeats_keys(text, jsonb) is 'Whether a key stands more than once in an object of a JSON text';
comment on function migration.object_id_time(text) is 'The creation time within a Base44 ObjectId; null for other ids';
comment on function migration.id_key(text) is 'A Base44 id in the form in which equal ids are equal text; empty where it is blank';
comment on function migration.to_id_key(text) is 'What migration.id_key returns';
comment on function migration.id_key_of_other(text) is 'The same of an id that is not 24 hex digits in lower case';
comment on function migration.too_long(text, text) is 'The reason why a text does not fit into the index of its column; null where it does';
comment on function migration.present_fields(jsonb) is 'The members of an object that are not blank text, as text';
comment on function migration.repair(boolean, text, text, text, text) is 'A value that was changed rather than carried over, as migration.repairs keeps it';

comment on function migration.unfit(text, boolean, text, text) is 'A value that its column''s type cannot hold, as migration.repairs keeps it';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  migration.as_timestamp(text),
  migration.to_timestamp(text),
  migration.to_timestamp_utc(text, timestamp),
  migration.as_unusual_timestamp(text),
  migration.as_signed_integer(text),
  migration.as_integer(text),
  migration.as_bigint(text),
  migration.as_numeric(text),
  migration.as_date(text),
  migration.as_time(text),
  migration.as_text_array(text),
  migration.as_uuid_array(text),
  migration.other_ids(text[]),
  migration.as_boolean(text),
  migration.as_creator(text),
  migration.as_jsonb(text),
  migration.repeats_keys(text, jsonb),
  migration.object_id_time(text),
  migration.id_key(text),
  migration.to_id_key(text),
  migration.id_key_of_other(text),
  migration.repair(boolean, text, text, text, text),
  migration.unfit(text, boolean, text, text)
from public;
