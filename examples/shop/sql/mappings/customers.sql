-- What becomes of a Customer record.
-- entity: Customer
-- fields: id, email, handle|nickname, full_name, points, created_date, updated_date
-- unique_suffix: handle in customers by id, made from email, repaired
-- exchangeable_unique: email; released by email = id || '@shop.invalid'

with typed as materialized (
  select f.*,
         base44_uuid(f.base44_id) as key,
         lower(b44.trim(f.email)) as address,
         migration.as_integer(f.points) as collected,
         coalesce(migration.as_timestamp(f.created_date), migration.object_id_time(f.base44_id), f.exported_at) as opened_at
    from source f
),
judged as (
  select t.*,
         array_remove(array[
           case when t.base44_id is null then 'missing_id' end,
           case when t.superseded then 'duplicate_id' end,
           case when t.address is null then 'missing_email' end,
           migration.too_long(t.address, 'email'),
           case when t.points is not null and t.collected is null or t.collected < 0 then 'invalid:points' end,
           case when t.created_date is not null and migration.as_timestamp(t.created_date) is null then 'invalid:created_date' end
         ], null) as faults
    from typed t
),
-- Addresses that their customers will not give up: those of the new system, edited ones, and those whose record is refused.
held as (
  select c.email, array_agg(c.id) as holders
    from customers c
   where not exists (
     select from migration.following f
       join judged j on j.key = f.id and not j.superseded and j.faults = '{}'
      where f.entity = 'customers' and f.id = c.id)
   group by c.email
),
accepted as (
  select j.*,
         j.faults || case
           when not j.superseded and j.address is not null and (
             row_number() over (
               partition by j.address, j.superseded
               order by cardinality(j.faults) > 0, coalesce(j.key <> all (held.holders), true), j.opened_at,
                 j.key nulls last, j.record_number) > 1
             or not coalesce(held.holders <@ array[j.key], true))
             then array['duplicate_email']
           else '{}' end as reasons
    from judged j
    left join held on held.email = j.address
)
select a.record_number,
       a.base44_id,
       a.key as id,
       a.address as email,
       coalesce(lower(b44.trim(a.handle)), split_part(a.address, '@', 1)) as handle,
       b44.trim(a.full_name) as full_name,
       coalesce(a.collected, 0) as points,
       a.opened_at as created_at,
       coalesce(migration.as_timestamp(a.updated_date), a.opened_at) as updated_at,
       a.handle is not null as name_given,
       a.reasons,
       '{}'::jsonb[] as repairs,
       null::jsonb as unmapped
  from accepted a
