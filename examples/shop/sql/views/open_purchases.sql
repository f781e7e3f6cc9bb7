-- What is bought and not yet on its way, oldest first. It shows whoever reads it only what the policies of purchases do.
-- depends: purchases, customers

create or replace view open_purchases with (security_invoker = true) as
select p.id, p.purchased_at, p.total_cents, c.full_name
  from purchases p
  join customers c on c.id = p.customer_id
 where p.stage in ('open', 'paid')
 order by p.purchased_at;

comment on view open_purchases is 'What is bought and not yet on its way, oldest first';
comment on column open_purchases.id is 'purchases.id';
comment on column open_purchases.purchased_at is 'When it was bought';
comment on column open_purchases.total_cents is 'What was paid, in cents';
comment on column open_purchases.full_name is 'Who bought it';
