-- Posts of a user by time and state. There are two by user and state: this one, of
-- all rows, is idx_posts_user_published_state; the partial one keeps the name (posts_partial_indexes).
-- on: posts

create index if not exists idx_posts_user_created on posts (user_id, created_at desc);
create index if not exists idx_posts_user_published_state on posts (user_id, published, published_at desc);
