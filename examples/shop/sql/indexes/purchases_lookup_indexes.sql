-- The purchases of a customer, newest first.
-- on: purchases

create index if not exists idx_purchases_customer on purchases (customer_id, purchased_at desc);
