-- Whether text is a value of a type, as PostgreSQL's own parser judges it, without an error where it is not.
-- From version 16 on no exception is caught, so that what calls these may run in parallel; 15 knows no other way.
-- depends: b44/upgrade_from_0_1

-- Levels of arrays and objects; brackets within strings do not count.
create or replace function b44.json_depth(value text) returns bigint
language sql immutable strict parallel safe
return (
  select max(levels.depth)
    from (select sum(case t.c when '[' then 1 when '{' then 1 when ']' then -1 when '}' then -1 end)
                   over (order by t.place) as depth
            from string_to_table(regexp_replace(value, E'"(?:[^"\\\\]|\\\\.)*"', '', 'g'), null)
                 with ordinality as t (c, place)) levels);

do $$
begin
  if current_setting('server_version_num')::integer >= 160000 then
    create or replace function b44.is_timestamp(value text) returns boolean
    language sql stable parallel safe
    return pg_input_is_valid(value, 'timestamp');

    -- The parser calls itself for each level, and to run out of stack is an error all the same: hence the limit.
    create or replace function b44.json_is_valid(value text) returns boolean
    language sql stable parallel safe
    return case
      when length(value) > 1000 and length(value) - length(translate(value, '[{', '')) > 1000 and b44.json_depth(value) > 1000
        then false
      else pg_input_is_valid(value, 'jsonb')
    end;

    -- Its only name is qualified: it needs no search_path, which would take as long to set as the rest of the call.
    create or replace function b44.is_json(value text) returns boolean
    language plpgsql immutable strict parallel safe
    as $function$ begin return b44.json_is_valid(value); end $function$;
  else
    create or replace function b44.is_timestamp(value text) returns boolean
    language plpgsql stable strict parallel unsafe
    set search_path = public, pg_temp
    as $function$
    begin
      perform value::timestamp;
      return true;
    exception
      when data_exception then
        return false;
    end
    $function$;

    create or replace function b44.is_json(value text) returns boolean
    language plpgsql immutable strict parallel unsafe
    set search_path = public, pg_temp
    as $function$
    begin
      if length(value) > 1000 and length(value) - length(translate(value, '[{', '')) > 1000
          and b44.json_depth(value) > 1000 then
        return false;
      end if;
      perform value::jsonb;
      return true;
    exception
      when data_exception or program_limit_exceeded or statement_too_complex then
        return false;
    end
    $function$;
  end if;
end
$$;

comment on function b44.json_depth(text) is 'How deep arrays and objects of a JSON text are nested';
comment on function b44.is_timestamp(text) is 'Whether PostgreSQL reads the text as a timestamp, of whatever form';
comment on function b44.is_json(text) is 'Whether the text is JSON that jsonb can hold, 1,000 levels deep at most';
