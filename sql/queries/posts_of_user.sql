-- A user's newest posts.
-- depends: posts
-- uses: idx_posts_user_created, idx_posts_user_id

select p.id, p.title, p.created_at
  from posts p
 where p.user_id = '00000000-0000-8000-8000-000000000b44'
 order by p.created_at desc
 limit 20;
