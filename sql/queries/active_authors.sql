-- Authors of more than five published posts since a date. No index is meant: most rows of the months that
-- are left are read.
-- depends: posts, user_names
-- prunes: posts
-- since: 2024-01-01 00:00+00

with post_stats as (
  select p.user_id,
         count(*) as post_count,
         avg(length(p.content)) as avg_content_length,
         max(p.created_at) as last_post_date
    from posts p
   where p.published = true
     and p.created_at >= '2024-01-01 00:00+00'
   group by p.user_id
  having count(*) > 5
)
select u.display_name, s.post_count, s.avg_content_length, s.last_post_date
  from post_stats s
  join user_names u on u.id = s.user_id
 order by s.post_count desc;
