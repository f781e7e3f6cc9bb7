-- What every review must be.
-- on: reviews
-- depends: products, customers

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'reviews'::regclass and conname = 'chk_reviews_stars') then
    alter table reviews add constraint chk_reviews_stars check (stars between 1 and 5);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'reviews'::regclass and conname = 'fk_reviews_product') then
    alter table reviews add constraint fk_reviews_product foreign key (product_id) references products (id) on delete cascade;
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'reviews'::regclass and conname = 'fk_reviews_customer') then
    alter table reviews add constraint fk_reviews_customer foreign key (customer_id) references customers (id);
  end if;
end $$;
