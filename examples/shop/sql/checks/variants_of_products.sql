-- A variant is one of a product that is no variant itself. Name that product in parent_id.
-- on: products
-- severity: warn

select v.sku, p.sku as parent
  from products v
  join products p on p.id = v.parent_id
 where p.parent_id is not null
