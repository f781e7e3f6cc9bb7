-- Categories in the order of lists, and by who made or changed them. There is no idx_categories_slug_active:
-- categories_slug_key is unique among all categories, not only active ones. These are for the lists that
-- sort_order is there for and for the foreign keys.
-- on: categories

create index if not exists idx_categories_sort_order on categories (sort_order, name) where active = true;
create index if not exists idx_categories_created_by on categories (created_by);
create index if not exists idx_categories_updated_by on categories (updated_by) where updated_by is not null;
