-- What becomes of a Purchase record.
-- entity: Purchase
-- depends: customers
-- fields: id, customer|customer_id, total, stage, purchased_at|bought_at, created_date, updated_date

select f.record_number,
       f.base44_id,
       base44_uuid(f.base44_id) as id,
       buyer.id as customer_id,
       v.total as total_cents,
       coalesce(v.stage, 'open') as stage,
       coalesce(v.bought_at, v.made_at, migration.object_id_time(f.base44_id), f.exported_at) as purchased_at,
       array_remove(array[
         case when f.base44_id is null then 'missing_id' end,
         case when f.superseded then 'duplicate_id' end,
         case when buyer.id is null then 'orphan_customer' end,
         case when v.total is null then 'invalid:total' end,
         case when v.stage not in ('open', 'paid', 'shipped', 'returned') then 'invalid:stage' end,
         case when f.purchased_at is not null and v.bought_at is null then 'invalid:purchased_at' end,
         case when f.created_date is not null and v.made_at is null then 'invalid:created_date' end
       ], null) as reasons,
       '{}'::jsonb[] as repairs,
       nullif(jsonb_strip_nulls(jsonb_build_object(
         'created_date', case when f.purchased_at is not null then f.created_date end, 'updated_date', f.updated_date)), '{}') as unmapped
  from source f
 cross join lateral (
   select case when f.total ~ '^ *[0-9]{1,7}([.][0-9]{1,2})? *$' then (f.total::numeric * 100)::integer end as total,
          lower(b44.trim(f.stage)) as stage,
          migration.as_timestamp(f.purchased_at) as bought_at,
          migration.as_timestamp(f.created_date) as made_at
   offset 0
 ) v
  left join customers buyer on buyer.id = base44_uuid(f.customer)
