-- Posts by what they point at, since PostgreSQL makes no index for a foreign key.
-- idx_posts_category_id is the one of all rows, the partial one is idx_posts_category_id_set.
-- The last two are ours: without them the deletion of a user reads every partition. For user_id see
-- posts_equality_indexes.
-- on: posts

create index if not exists idx_posts_category_id on posts (category_id);
create index if not exists idx_posts_category_id_set on posts (category_id) where category_id is not null;
create index if not exists idx_posts_created_by on posts (created_by);
create index if not exists idx_posts_updated_by on posts (updated_by) where updated_by is not null;
