-- A user's published posts, newest first, out of the covering index alone.
-- depends: posts
-- uses: idx_posts_list, idx_posts_user_published, idx_posts_user_published_state

select p.title, p.excerpt, p.published_at
  from posts p
 where p.user_id = '00000000-0000-8000-8000-000000000b44'
   and p.published = true
 order by p.published_at desc
 limit 20;
