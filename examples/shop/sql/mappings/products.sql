-- What becomes of a Product record.
-- entity: Product
-- fields: id, sku, label|title, price, parent|parent_id, listed, attributes, created_date, updated_date
-- deferred_fk: parent_id
-- unique_suffix: page in products by id, made from label, ordered by sku, repaired

with typed as materialized (
  select f.*,
         base44_uuid(f.base44_id) as key,
         upper(b44.trim(f.sku)) as number,
         case when f.price ~ '^ *[0-9]{1,7}([.][0-9]{1,2})? *$' then (f.price::numeric * 100)::integer end as cents,
         migration.as_boolean(f.listed) as on_sale,
         migration.as_jsonb(f.attributes) as details,
         coalesce(migration.as_timestamp(f.created_date), migration.object_id_time(f.base44_id), f.exported_at) as added_at
    from source f
),
judged as (
  select t.*,
         array_remove(array[
           case when t.base44_id is null then 'missing_id' end,
           case when t.superseded then 'duplicate_id' end,
           case when t.number is null then 'missing_sku' end,
           migration.too_long(t.number, 'sku'),
           case when t.label is null then 'missing_label' end,
           case when t.cents is null then 'invalid:price' end,
           case when t.listed is not null and t.on_sale is null then 'invalid:listed' end,
           case when t.attributes is not null and t.details is null then 'invalid:attributes' end,
           case when t.number is not null and not t.superseded and exists (
             select from products p where p.sku = t.number and p.id <> t.key) then 'duplicate_sku' end
         ], null) as faults
    from typed t
),
accepted as materialized (
  select j.*,
         j.faults || case
           when 'duplicate_sku' <> all (j.faults) and j.number is not null and not j.superseded and row_number() over (
             partition by j.number, j.superseded order by cardinality(j.faults) > 0, j.added_at, j.record_number) > 1
             then array['duplicate_sku']
           else '{}' end as reasons
    from judged j
)
select a.record_number,
       a.base44_id,
       a.key as id,
       a.number as sku,
       coalesce(lower(substring(a.label from '[A-Za-z0-9]+')), 'product') as page,
       b44.trim(a.label) as label,
       a.cents as price_cents,
       parent.id as parent_id,
       coalesce(a.on_sale, true) as listed,
       a.details as attributes,
       a.added_at,
       false as name_given,
       a.reasons,
       array_remove(array[
         migration.repair(a.parent is not null and parent.id is null, 'parent_id', 'unknown_product', a.parent, null),
         migration.repair(migration.repeats_keys(a.attributes, a.details), 'attributes', 'repeated_key', a.attributes, a.details::text)
       ], null) as repairs,
       case when a.updated_date is not null then jsonb_build_object('updated_date', a.updated_date) end as unmapped
  from accepted a
  left join (
    select s.key as id from accepted s where s.reasons = '{}' union select p.id from products p
  ) parent on parent.id = base44_uuid(a.parent)
