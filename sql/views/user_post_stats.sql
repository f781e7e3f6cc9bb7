-- Posts of each user in numbers, kept by refresh_user_stats(). With the unique index that a refresh
-- without waiting readers (CONCURRENTLY) needs.
-- depends: posts, statistics_functions

create materialized view if not exists user_post_stats as
select p.user_id,
       count(*) as total_posts,
       count(*) filter (where p.published) as published_posts,
       count(*) filter (where not p.published) as draft_posts,
       avg(p.like_count) as avg_likes,
       max(p.created_at) as last_post_date
  from posts p
 group by p.user_id;

create unique index if not exists idx_user_post_stats_user_id on user_post_stats (user_id);

comment on materialized view user_post_stats is 'Posts of each user in numbers, as of the last refresh';
comment on column user_post_stats.user_id is 'The author';
comment on column user_post_stats.total_posts is 'Posts';
comment on column user_post_stats.published_posts is 'Published ones';
comment on column user_post_stats.draft_posts is 'The others';
comment on column user_post_stats.avg_likes is 'Likes of a post, on average';
comment on column user_post_stats.last_post_date is 'When the latest was made';
