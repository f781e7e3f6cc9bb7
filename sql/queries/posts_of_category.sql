-- Posts of a category.
-- depends: posts
-- uses: idx_posts_category_id, idx_posts_category_id_set

select p.id, p.title
  from posts p
 where p.category_id = '00000000-0000-8000-8000-000000000b44';
