-- The newest published posts with author and category. Its covering index is
-- idx_posts_published_covering.
-- depends: posts, user_names, categories
-- uses: idx_posts_published_covering
-- prunes: posts
-- since: 2024-01-01 00:00+00

select p.id, p.title, p.excerpt, p.created_at, p.user_id, p.category_id, u.display_name, c.name as category_name
  from posts p
  left join user_names u on u.id = p.user_id
  left join categories c on c.id = p.category_id
 where p.published = true
   and p.created_at >= '2024-01-01 00:00+00'
 order by p.created_at desc
 limit 20;
