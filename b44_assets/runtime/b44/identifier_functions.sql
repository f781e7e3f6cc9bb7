-- Turns Base44 identifiers into UUIDs, and back: the same id gives the same UUID on every run, so links resolve for ever.
-- depends: b44/text_functions

-- SHA-1 by hand, because core PostgreSQL has none and version 5 UUIDs are made of it. Only ids that are neither an
-- ObjectId nor a UUID come here; some 0.3 ms each. 
create or replace function b44.sha1(message bytea) returns bytea
language plpgsql immutable strict parallel safe
set search_path = pg_catalog
as $$
declare
  mask constant bigint := 4294967295;
  padded bytea := message || E'\\x80'::bytea
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
$$;

-- Text that is neither: white space around it does not count, then RFC 9562, section 5.5 (version 5), in the one
-- namespace of this project.
create or replace function b44.name_uuid(name text) returns uuid
language plpgsql immutable strict parallel safe
set search_path = public, pg_temp
as $$
declare
  trimmed constant text := b44.trim(name);
  digest bytea;
begin
  if trimmed is null then
    return null;
  elsif trimmed <> name then
    return base44_uuid(trimmed);
  end if;
  digest := b44.sha1(E'\\x6261736534348000800000000000b044'::bytea || convert_to(name, 'UTF8'));
  digest := set_byte(digest, 6, (get_byte(digest, 6) & 15) | 80);
  digest := set_byte(digest, 8, (get_byte(digest, 8) & 63) | 128);
  return encode(substr(digest, 1, 16), 'hex')::uuid;
end
$$;

-- Digits are told by trimming bytes, as this runs for every id: on text, trimming costs three times as much and a regular
-- expression ten times.
create or replace function base44_uuid(base44_id text) returns uuid
language plpgsql immutable strict parallel safe
set search_path = public, pg_temp
as $$
begin
  if length(base44_id) = 24 and ltrim(convert_to(base44_id, 'UTF8'), '0123456789abcdefABCDEF'::bytea) = '' then
    return (substr(base44_id, 1, 12) || '8' || substr(base44_id, 13, 3) || '8' || substr(base44_id, 16, 9) || '000b44')::uuid;
  elsif length(base44_id) = 36
      and translate(base44_id, '0123456789abcdefABCDEF', '0000000000000000000000') = '00000000-0000-0000-0000-000000000000' then
    return base44_id::uuid;
  end if;
  return b44.name_uuid(base44_id);
end
$$;

-- By what an export names who made a record: an id, or, as Base44's API does, an e-mail address.
create or replace function b44.user_key(named text) returns text
language sql immutable parallel safe
return case
  when strpos(named, '@') > 0 then lower(b44.trim(named) collate b44.unicode) collate "default"
  else base44_uuid(named)::text
end;

-- The version and variant digits stand at 13 and 17 of the 32; the tail says who made the UUID. Not strict, and without a regular
-- expression: it is called for each account, and takes a quarter of the time.
create or replace function base44_object_id(id uuid) returns text
language sql immutable parallel safe
return case
  when substr(id::text, 15, 1) = '8' and substr(id::text, 20, 1) = '8' and substr(id::text, 31) = '000b44' then
    translate(substr(id::text, 1, 13) || substr(id::text, 16, 3) || substr(id::text, 21, 10), '-', '')
end;

-- For views that show ids as they were. What cannot be read back from a UUID stands in a column beside it, by UUID, so that it
-- stays true where a reference is changed.
create or replace function b44.original_id(id uuid, others jsonb) returns text
language sql immutable parallel safe
return coalesce(others ->> id::text, base44_object_id(id), id::text);

create or replace function b44.original_ids(ids uuid[], others jsonb) returns text[]
language sql immutable parallel safe
return case when ids is not null then
  array(select b44.original_id(i.id, others) from unnest(ids) with ordinality as i (id, place) order by i.place)
end;

comment on function b44.sha1(bytea) is 'The SHA-1 digest (20 bytes), for version 5 UUIDs';
comment on function b44.name_uuid(text) is 'The UUID of an id that is no ObjectId and no UUID: version 5; null for white space';
comment on function base44_uuid(text) is
  'The UUID that stands for a Base44 id: ObjectIds can be read back, UUIDs pass through, other text is hashed';
comment on function b44.user_key(text) is 'The e-mail address in lower case, or else the UUID, by which a record names a user';
comment on function base44_object_id(uuid) is
  'The 24 hex digits of the Base44 ObjectId that a UUID was made from; null for other UUIDs';
comment on function b44.original_id(uuid, jsonb) is
  'The Base44 id that a UUID was made from, by what is kept of those that cannot be read back; another UUID as it is';
comment on function b44.original_ids(uuid[], jsonb) is 'The same of each element';
