-- Posts by tag. The guide's idx_posts_tags is left out: its definition is that of idx_posts_tags_gin.
-- on: posts

create index if not exists idx_posts_tags_gin on posts using gin (tags);
