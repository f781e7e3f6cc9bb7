-- Published posts and drafts, each with the rows of its own only. There is no idx_posts_published_at: its
-- definition would be that of idx_posts_published_only.
-- on: posts

create index if not exists idx_posts_published_only on posts (published_at desc) where published = true;
create index if not exists idx_posts_user_published on posts (user_id, published_at desc) where published = true;
create index if not exists idx_posts_user_drafts on posts (user_id, updated_at desc) where published = false;
