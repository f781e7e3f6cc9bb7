-- Posts with words in the title, found by their stems.
-- depends: posts
-- uses: idx_posts_title_search

select p.id, p.title
  from posts p
 where to_tsvector('english', p.title) @@ plainto_tsquery('english', 'database migration');
