-- Full-text search in titles and bodies, as in the guide. What is added: no statistics for the expressions, since
-- ANALYZE would parse every sampled document again, for an estimate that GIN searches hardly use.
-- on: posts

create index if not exists idx_posts_title_search on posts using gin (to_tsvector('english', title));
alter index idx_posts_title_search alter column 1 set statistics 0;

create index if not exists idx_posts_content_search on posts using gin (to_tsvector('english', content));
alter index idx_posts_content_search alter column 1 set statistics 0;
