-- What white space and lower case mean in every other function: the same on every server, whatever its locale.
-- None of these is declared strict: PostgreSQL would no longer expand them in place, and they are called for every value.

-- Databases differ in what they call a letter ("C" knows ASCII only), so the project brings its own collation: full
-- Unicode from the server itself (18), its simpler form (17), or ICU (15 and 16).
do $$
declare
  chosen text;
begin
  if to_regcollation('public.base44_unicode') is null then
    select c.collname into chosen
      from unnest(array['pg_unicode_fast', 'pg_c_utf8', 'und-x-icu', 'C.utf8']) with ordinality as wanted (name, place)
      join pg_catalog.pg_collation c on c.collname = wanted.name
     where c.collencoding in (-1, pg_catalog.pg_char_to_encoding('UTF8'))
     order by wanted.place
     limit 1;
    if chosen is null then
      raise exception 'this server has no Unicode collation (pg_unicode_fast, pg_c_utf8, und-x-icu or C.utf8)';
    end if;
    execute format('create collation public.base44_unicode from pg_catalog.%I', chosen);
  end if;
end
$$;

-- Unicode's White_Space and the byte order mark; plain trim() takes off spaces only. Null where nothing is left.
create or replace function base44_trim(value text) returns text
language sql immutable parallel safe
return nullif(btrim(value, U&' \0009\000A\000B\000C\000D\001C\001D\001E\001F\0085\00A0\1680\2000\2001\2002\2003\2004\2005\2006\2007\2008\2009\200A\2028\2029\202F\205F\3000\FEFF'), '');

-- Blank text to null, other text untouched. The first test is there for speed: most text begins with a visible letter.
create or replace function base44_present(value text) returns text
language sql immutable parallel safe
return case when ascii(value) between 33 and 126 or base44_trim(value) is not null then value end;

-- Lower case, letters and digits of any script, anything between them one hyphen; null where nothing is left.
create or replace function base44_slug(value text) returns text
language sql immutable parallel safe
return nullif(trim(both '-' from regexp_replace(lower(value collate public.base44_unicode), '[^[:alnum:]]+', '-', 'g')), '');

comment on function base44_trim(text) is 'The text without white space around it; null where nothing is left';
comment on function base44_present(text) is 'The text as it is; null where it is empty or white space';
comment on function base44_slug(text) is 'The text as a part of a web address, not yet unique; null where nothing is left';
