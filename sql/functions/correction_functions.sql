-- What an exported record is read as, once somebody has corrected it in quarantine.
-- depends: text_functions, migration/corrections, migration/quarantine

-- A corrected record may be corrected again, also back to what it was: each correction counts once, in the order in which
-- they were made. Values are text, as exported.
create or replace function migration.corrected(entity_name text, exported_id text, exported jsonb) returns jsonb
language sql stable parallel safe
begin atomic
  with recursive corrected (record, base44_id, last) as (
    select exported, exported_id, 0::bigint
    union all
    select next.record, base44_trim(next.record ->> 'id'), next.id
      from corrected
     cross join lateral (
       select c.id, (select jsonb_object_agg(field.key, field.value) from jsonb_each_text(c.corrected) field) as record
         from migration.corrections c
        where c.entity = entity_name and c.original = md5(jsonb_strip_nulls(corrected.record)::text)
          and coalesce(c.base44_id, '') = coalesce(corrected.base44_id, '') and c.id > corrected.last
        order by c.id
        limit 1) next
  )
  select record from corrected order by last desc limit 1;
end;

comment on function migration.corrected(text, text, jsonb) is
  'An exported record after all corrections that were made to it; as it is without any';
