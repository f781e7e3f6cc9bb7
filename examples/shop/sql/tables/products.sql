-- What is sold; a variant names the product that it is one of.

create table if not exists products (
  id uuid primary key default gen_random_uuid(),
  sku text not null unique,
  page text not null unique,
  label text not null,
  price_cents integer not null,
  parent_id uuid,
  listed boolean not null default true,
  attributes jsonb,
  added_at timestamptz not null default now()
);

comment on table products is 'What is sold';
comment on column products.id is 'Identifier; made from the Base44 id for migrated products';
comment on column products.sku is 'Number in the shop, upper case, unique';
comment on column products.page is 'Its page in the shop: the first word of its label, unique';
comment on column products.label is 'What is written on it';
comment on column products.price_cents is 'Price in cents';
comment on column products.parent_id is 'The product that this is a variant of';
comment on column products.listed is 'Whether it is on sale';
comment on column products.attributes is 'Size, weight and the like';
comment on column products.added_at is 'When it was added';
