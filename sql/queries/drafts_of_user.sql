-- A user's drafts, last changed first.
-- depends: posts
-- uses: idx_posts_user_drafts

select p.id, p.title, p.updated_at
  from posts p
 where p.user_id = '00000000-0000-8000-8000-000000000b44'
   and p.published = false
 order by p.updated_at desc
 limit 20;
