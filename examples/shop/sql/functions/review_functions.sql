-- Rules for reviews that the shop writes itself; those that are migrated were judged by their mapping.

create or replace function only_for_sale() returns trigger
language plpgsql
set search_path = public, pg_temp
as $$
begin
  if not b44.migrating(tg_relid) and not exists (select from products p where p.id = new.product_id and p.listed) then
    raise exception 'product % is not on sale and cannot be reviewed', new.product_id
      using errcode = 'check_violation', table = 'reviews', constraint = 'trg_reviews_only_for_sale';
  end if;
  return new;
end
$$;

comment on function only_for_sale() is 'Lets only products be reviewed that are on sale';

revoke all on routine only_for_sale() from public;
