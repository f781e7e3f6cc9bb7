-- Conversions of Base44 values: roles and tags.

create or replace function transform_user_role(base44_role text) returns text
language sql immutable parallel safe
return case lower(b44.trim(base44_role) collate b44.unicode)
  when 'superuser' then 'admin'
  when 'admin' then 'admin'
  when 'editor' then 'moderator'
  when 'moderator' then 'moderator'
  when 'guest' then 'guest'
  else 'user'
end;

-- A JSON array, the text of a PostgreSQL array, or a comma-separated list. Tags are trimmed, empty ones dropped, spaces inside
-- kept. Null for text that begins like a JSON array and is none: guessing would invent tags. What is no text in a JSON array
-- (a number, an object) is a tag as it is written there.
create or replace function transform_tags(base44_tags text) returns text[]
language plpgsql immutable parallel safe
set search_path = public, pg_temp
as $$
declare
  listed constant text := b44.trim(base44_tags);
  element text;
  part_form text;
  elements jsonb;
  tag text;
  part text[];
  tags text[] := '{}';
begin
  if listed is null then
    return tags;
  elsif left(listed, 1) = '{' then
    -- Quoted, or not and without braces and quotes, or nothing at all; and such elements within braces of their own.
    element := '\s*(?:"(?:[^"\\]|\\.)*"\s*|(?:[^{}",\\\s]|\\.)(?:[^{}",\\]|\\.)*)?';
    part_form := '(?:' || element || '|\s*\{' || element || '(?:,' || element || ')*\}\s*)';
    if listed ~ ('^\{' || part_form || '(?:,' || part_form || ')*\}$') then
      -- Within the braces, also those of an inner array: quoted elements, and others, of which NULL is none.
      for part in
        select regexp_matches(listed, '"((?:[^"\\]|\\.)*)"|((?:[^{}",\\]|\\.)+)', 'g')
      loop
        tag := b44.trim(regexp_replace(coalesce(part[1], b44.trim(part[2])), '\\(.)', '\1', 'g'));
        if tag is not null and (part[1] is not null or lower(tag) <> 'null') then
          tags := tags || tag;
        end if;
      end loop;
      return tags;
    end if;
  end if;
  if left(listed, 1) <> '[' then
    foreach tag in array string_to_array(listed, ',') loop
      tag := b44.trim(tag);
      if tag is not null then
        tags := tags || tag;
      end if;
    end loop;
    return tags;
  elsif not b44.is_json(listed) then
    return null;
  end if;
  elements := listed::jsonb;
  for i in 0 .. jsonb_array_length(elements) - 1 loop
    tag := b44.trim(elements ->> i);
    -- jsonb writes numbers otherwise and keeps one of two members of the same name. What begins with a letter is none of these.
    if ascii(tag) not between 58 and 90 and ascii(tag) not between 92 and 122 and jsonb_typeof(elements -> i) <> 'string' then
      tag := b44.trim(listed::json ->> i);
    end if;
    if tag is not null then
      tags := tags || tag;
    end if;
  end loop;
  return tags;
end
$$;

-- Version 15 cannot ask the parser without an exception to catch, and no parallel worker may catch one.
do $$
begin
  if current_setting('server_version_num')::integer < 160000 then
    alter function transform_tags(text) parallel unsafe;
  end if;
end
$$;

comment on function transform_user_role(text) is 'The role in the new system for a role in Base44; user where it is unknown';
comment on function transform_tags(text) is 'Tags from a JSON array, an array literal or a comma-separated list; null for a broken JSON array';
