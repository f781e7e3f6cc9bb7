-- What every line must be.
-- on: order_lines
-- depends: products

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'order_lines'::regclass and conname = 'chk_order_lines_order') then
    alter table order_lines add constraint chk_order_lines_order check ("order" >= 1 and quantity >= 1);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'order_lines'::regclass and conname = 'fk_order_lines_product') then
    alter table order_lines add constraint fk_order_lines_product foreign key (product_id) references products (id);
  end if;
end $$;
