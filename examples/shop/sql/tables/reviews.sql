-- What customers say of products.

create table if not exists reviews (
  id uuid primary key default gen_random_uuid(),
  product_id uuid not null,
  customer_id uuid not null,
  stars integer not null,
  body text,
  posted_at timestamptz not null default now()
);

comment on table reviews is 'What customers say of products';
comment on column reviews.id is 'Identifier; made from the Base44 id for migrated reviews';
comment on column reviews.product_id is 'The product';
comment on column reviews.customer_id is 'Who wrote it';
comment on column reviews.stars is '1 to 5';
comment on column reviews.body is 'The text; HTML is sanitized';
comment on column reviews.posted_at is 'When it was written';
