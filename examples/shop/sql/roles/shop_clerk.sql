-- Who packs parcels: sees what is sold and to whom, and says that it is on its way. Give it to people: grant shop_clerk to <name>.
-- depends: customers, products, purchases, order_lines, open_purchases, product_ratings

do $$ begin
  if not exists (select from pg_roles where rolname = 'shop_clerk') then
    create role shop_clerk nologin;
  end if;
end $$;

grant usage on schema public to shop_clerk;

grant select on products, purchases, order_lines, open_purchases, product_ratings to shop_clerk;

-- Not the address.
grant select (id, full_name) on customers to shop_clerk;

grant update (stage) on purchases to shop_clerk;
