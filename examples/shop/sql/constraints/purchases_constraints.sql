-- What every purchase must be.
-- on: purchases
-- depends: customers

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'purchases'::regclass and conname = 'chk_purchases_stage') then
    alter table purchases add constraint chk_purchases_stage check (stage in ('open', 'paid', 'shipped', 'returned'));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'purchases'::regclass and conname = 'fk_purchases_customer') then
    alter table purchases add constraint fk_purchases_customer foreign key (customer_id) references customers (id);
  end if;
end $$;
