-- Full-text search in titles and bodies, in what base44_search reads of them: to_tsvector fails on a text
-- with more than 1 MB of words. What is added: no statistics for the expressions, since ANALYZE would parse every sampled
-- document again, for an estimate that GIN searches hardly use.
-- on: posts

create index if not exists idx_posts_title_search on posts using gin (base44_search(title));
alter index idx_posts_title_search alter column 1 set statistics 0;

create index if not exists idx_posts_content_search on posts using gin (base44_search(content));
alter index idx_posts_content_search alter column 1 set statistics 0;
