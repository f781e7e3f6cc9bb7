-- What becomes of a Review record.
-- entity: Review
-- depends: customers, products
-- fields: id, product|product_id, customer|customer_id, stars, body|text, created_date, updated_date
-- html: body
-- large_columns: body

select f.record_number,
       f.base44_id,
       base44_uuid(f.base44_id) as id,
       product.id as product_id,
       writer.id as customer_id,
       v.stars,
       f.body,
       coalesce(v.written_at, migration.object_id_time(f.base44_id), f.exported_at) as posted_at,
       array_remove(array[
         case when f.base44_id is null then 'missing_id' end,
         case when f.superseded then 'duplicate_id' end,
         case when product.id is null then 'orphan_product' end,
         case when writer.id is null then 'orphan_customer' end,
         case when v.stars is null or v.stars not between 1 and 5 then 'invalid:stars' end,
         case when f.created_date is not null and v.written_at is null then 'invalid:created_date' end
       ], null) as reasons,
       array_remove(array[
         migration.repair(f.body_changed, 'body', 'sanitized', f.body_exported, f.body)
       ], null) as repairs,
       case when f.updated_date is not null then jsonb_build_object('updated_date', f.updated_date) end as unmapped
  from source f
 cross join lateral (
   select migration.as_integer(f.stars) as stars, migration.as_timestamp(f.created_date) as written_at offset 0
 ) v
  left join products product on product.id = base44_uuid(f.product)
  left join customers writer on writer.id = base44_uuid(f.customer)
