-- Clerks see what is not returned, and send what is paid on its way.
-- on: purchases
-- depends: shop_clerk

alter table purchases enable row level security;

drop policy if exists purchases_seen on purchases;
create policy purchases_seen on purchases for select to shop_clerk using (stage <> 'returned');

drop policy if exists purchases_sent on purchases;
create policy purchases_sent on purchases for update to shop_clerk using (stage = 'paid') with check (stage = 'shipped');
