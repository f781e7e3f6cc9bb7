-- The variants of a product.
-- on: products

create index if not exists idx_products_parent on products (parent_id) where parent_id is not null;
