-- What every customer must be.
-- on: customers

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'customers'::regclass and conname = 'chk_customers_points') then
    alter table customers add constraint chk_customers_points check (points >= 0);
  end if;
end $$;
