-- Posts by one column. idx_posts_published is the one of all rows,
-- the partial one is idx_posts_published_true. idx_posts_user_id stays beside idx_posts_user_created, whose prefix it
-- is, since equal keys are stored once and it is a fraction of the size.
-- on: posts

create index if not exists idx_posts_user_id on posts (user_id);
create index if not exists idx_posts_published on posts (published);
create index if not exists idx_posts_published_true on posts (published) where published = true;
create index if not exists idx_posts_created_at on posts (created_at desc);
create index if not exists idx_posts_updated_at on posts (updated_at desc);
