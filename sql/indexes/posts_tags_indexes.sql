-- Posts by tag. There is no idx_posts_tags: its definition would be that of idx_posts_tags_gin.
-- on: posts

create index if not exists idx_posts_tags_gin on posts using gin (tags);
