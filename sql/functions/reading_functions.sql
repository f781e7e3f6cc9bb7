-- Pages of published posts, newest first. A cursor that keeps milliseconds of created_at only skips rows of the
-- same moment or shows them twice; this one holds (created_at, id) in full: microseconds since 1970 and the id as
-- 24 bytes, in base64url. What 8 bytes do not hold (years from 294247 on, and infinity) stands as numbers that no time has:
-- the constraints refuse infinity, but a row that is there already must not break the first page.

create or replace function base44_encode_cursor(created_at timestamptz, id uuid) returns text
language sql immutable strict parallel safe
return translate(encode(int8send(case
    when created_at = '-infinity' then -2e18
    when created_at = 'infinity' then -1e18
    when created_at < '294247-01-01 00:00+00' then extract(epoch from created_at) * 1000000
    -- To the microsecond only as an interval.
    else extract(epoch from created_at - timestamptz '2000-01-01 00:00+00') * 1000000 + 946684800000000 - 14e18
  end::bigint) || uuid_send(id), 'base64'), '+/', '-_');

-- Two queries rather than one with "or": only so are later months left unread. The first comparison of the second one
-- says to the planner what the row comparison means, which it cannot prune by. One plan serves every page: a plan of its
-- own for each, over all partitions and their indexes, takes twenty times as long as to read the page.
create or replace function get_posts_paginated(limit_param integer default 20, cursor_param text default null)
returns table (id uuid, title text, created_at timestamptz, next_cursor text)
language plpgsql stable
set search_path = public, pg_temp
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  cursor_bytes bytea;
  microseconds numeric;
  cursor_created_at timestamptz;
  cursor_id uuid;
begin
  if b44.trim(cursor_param) is null then
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
    if microseconds between -5e18 and -4e18 then
      microseconds := microseconds + 14e18;
    end if;
    cursor_created_at := case microseconds
      when -2e18 then '-infinity'
      when -1e18 then 'infinity'
      else (timestamp 'epoch' + div(microseconds, 86400000000)::integer * interval '1 day'
        + (microseconds % 86400000000)::bigint * interval '1 microsecond') at time zone 'UTC'
    end;
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
$$;

comment on function base44_encode_cursor(timestamptz, uuid) is 'The place of a row in the order of (created_at, id), as opaque text of 32 characters';
comment on function get_posts_paginated(integer, text) is
  'A page of published posts, newest first; the last row''s next_cursor asks for the page after it';
