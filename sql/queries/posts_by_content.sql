-- Posts with words in the body, found by their stems.
-- depends: posts
-- uses: idx_posts_content_search

select p.id, p.title
  from posts p
 where to_tsvector('english', p.content) @@ plainto_tsquery('english', 'database migration');
