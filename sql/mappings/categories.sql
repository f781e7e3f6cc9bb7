-- What becomes of a Category record.
-- entity: Category
-- depends: users
-- fields: id, name, slug, description, color, sort_order, active, created_date|created_at, updated_date|updated_at,
--   created_by_id|created_by
-- unique_suffix: slug in categories by id, made from name, repaired
-- exchangeable_unique: name; released by name = id::text

with typed as materialized (
  select f.*,
         base44_uuid(f.base44_id) as key,
         b44.trim(f.name) as label,
         coalesce(migration.as_timestamp(f.created_date), migration.object_id_time(f.base44_id),
           migration.as_timestamp(f.updated_date), f.exported_at) as made_at
    from source f
),
judged as (
  select t.*,
         array_remove(array[
           case when t.base44_id is null then 'missing_id' end,
           case when t.superseded then 'duplicate_id' end,
           case when t.label is null then 'missing_name' end,
           migration.too_long(t.label, 'name'),
           migration.too_long(coalesce(b44.trim(t.slug), b44.slug(t.label)), 'slug'),
           case when t.sort_order is not null and migration.as_integer(t.sort_order) is null then 'invalid:sort_order' end,
           case when t.active is not null and migration.as_boolean(t.active) is null then 'invalid:active' end,
           case when t.created_date is not null and migration.as_timestamp(t.created_date) is null
             then 'invalid:created_at' end,
           case when t.updated_date is not null and migration.as_timestamp(t.updated_date) is null
             then 'invalid:updated_at' end
         ], null) as faults
    from typed t
),
-- Names that their categories will not give up: those of the new system, edited ones, and those whose record is refused.
held as (
  select c.name, array_agg(c.id) as holders
    from categories c
   where not exists (
     select from migration.following f
       join judged j on j.key = f.id and not j.superseded and j.faults = '{}'
      where f.entity = 'categories' and f.id = c.id)
   group by c.name
),
-- Of several categories of one name the earliest that is sound itself keeps it.
accepted as (
  select j.*,
         j.faults || case
           when not j.superseded and j.label is not null and (
             row_number() over (
               partition by j.label, j.superseded
               order by cardinality(j.faults) > 0, j.made_at, j.key nulls last, j.record_number) > 1
             or not coalesce(held.holders <@ array[j.key], true))
             then array['duplicate_name']
           else '{}' end as reasons
    from judged j
    left join held on held.name = j.label
)
select a.record_number,
       a.base44_id,
       a.key as id,
       a.label as name,
       coalesce(b44.trim(a.slug), b44.slug(a.label), 'category') as slug,
       a.description,
       case when b44.trim(a.color) ~ '^#[0-9A-Fa-f]{6}$' then b44.trim(a.color) end as color,
       coalesce(migration.as_integer(a.sort_order), 0) as sort_order,
       coalesce(migration.as_boolean(a.active), true) as active,
       a.made_at as created_at,
       coalesce(migration.as_timestamp(a.updated_date), a.made_at) as updated_at,
       coalesce(creator.id, '00000000-0000-8000-8000-000000000b44') as created_by,
       null::uuid as updated_by,
       a.slug is not null as name_given,
       a.reasons,
       array_remove(array[
         migration.repair(b44.trim(a.color) !~ '^#[0-9A-Fa-f]{6}$', 'color', 'not_a_hex_color', a.color, null)
       ], null) as repairs,
       case when creator.id is null and a.created_by_id is not null
         then jsonb_build_object(case when a.created_by_id ~ '@' then 'created_by' else 'created_by_id' end, a.created_by_id) end as unmapped
  from accepted a
  left join (
    select u.id::text as who, u.id from users u union all select u.email, u.id from users u
  ) creator on creator.who = b44.user_key(a.created_by_id) and creator.id <> '00000000-0000-8000-8000-000000000b44'
