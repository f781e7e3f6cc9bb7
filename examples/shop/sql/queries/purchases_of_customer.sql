-- What a customer has bought in a month, newest first.
-- depends: purchases
-- uses: idx_purchases_customer
-- prunes: purchases
-- since: 2025-12-01 00:00+00
-- until: 2026-01-01 00:00+00

select p.id, p.total_cents, p.purchased_at
  from purchases p
 where p.customer_id = '00000000-0000-8000-8000-000000000001'
   and p.purchased_at >= '2025-12-01 00:00+00'
   and p.purchased_at < '2026-01-01 00:00+00'
 order by p.purchased_at desc;
