-- What becomes of an OrderLine record.
-- entity: OrderLine
-- depends: purchases, products
-- fields: id, purchase|purchase_id, order, product|product_id, quantity, created_date, updated_date

with typed as materialized (
  select f.*,
         base44_uuid(f.base44_id) as key,
         bought.id as bought_id,
         migration.as_integer(f."order") as place,
         sold.id as sold_id,
         migration.as_integer(f.quantity) as pieces
    from source f
    left join purchases bought on bought.id = base44_uuid(f.purchase)
    left join products sold on sold.id = base44_uuid(f.product)
)
select t.record_number,
       t.base44_id,
       t.key as id,
       t.bought_id as purchase_id,
       t.place as "order",
       t.sold_id as product_id,
       t.pieces as quantity,
       array_remove(array[
         case when t.base44_id is null then 'missing_id' end,
         case when t.superseded then 'duplicate_id' end,
         case when t.bought_id is null then 'orphan_purchase' end,
         case when t.sold_id is null then 'orphan_product' end,
         case when t.place is null then 'invalid:order' end,
         case when coalesce(t.pieces, 0) < 1 then 'invalid:quantity' end,
         case when not t.superseded and row_number() over (
           partition by t.bought_id, t.place, t.superseded order by t.record_number) > 1
           or exists (select from order_lines l where l.purchase_id = t.bought_id and l."order" = t.place and l.id <> t.key)
           then 'duplicate_order' end
       ], null) as reasons,
       '{}'::jsonb[] as repairs,
       nullif(jsonb_strip_nulls(jsonb_build_object('created_date', t.created_date, 'updated_date', t.updated_date)), '{}') as unmapped
  from typed t
