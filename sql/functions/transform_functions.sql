-- The guide's conversions of Base44 values: roles and tags.
-- depends: text_functions

create or replace function transform_user_role(base44_role text) returns text
language sql immutable parallel safe
return case lower(base44_trim(base44_role))
  when 'superuser' then 'admin'
  when 'admin' then 'admin'
  when 'editor' then 'moderator'
  when 'moderator' then 'moderator'
  when 'guest' then 'guest'
  else 'user'
end;

-- A JSON array or a comma-separated list. Tags are trimmed, empty ones dropped, spaces inside kept. Null for text that
-- begins like a JSON array and is none: guessing would invent tags.
create or replace function transform_tags(base44_tags text) returns text[]
language plpgsql immutable parallel unsafe
as $$
declare
  listed constant text := base44_trim(base44_tags);
  elements text[];
begin
  if listed is null then
    return '{}';
  elsif left(listed, 1) = '[' then
    elements := array(select value from jsonb_array_elements_text(listed::jsonb) with ordinality as e (value, place) order by place);
  else
    elements := string_to_array(listed, ',');
  end if;
  return array(
    select base44_trim(value)
      from unnest(elements) with ordinality as e (value, place)
     where base44_trim(value) is not null
     order by place);
exception
  when data_exception or program_limit_exceeded or statement_too_complex then
    return null;
end
$$;

comment on function transform_user_role(text) is 'The role in the new system for a role in Base44; user where it is unknown';
comment on function transform_tags(text) is 'Tags from a JSON array or a comma-separated list; null for a broken JSON array';
