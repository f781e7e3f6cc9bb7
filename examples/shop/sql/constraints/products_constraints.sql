-- What every product must be.
-- on: products

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'products'::regclass and conname = 'chk_products_price') then
    alter table products add constraint chk_products_price check (price_cents >= 0);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'products'::regclass and conname = 'fk_products_parent') then
    alter table products add constraint fk_products_parent foreign key (parent_id) references products (id);
  end if;
end $$;
