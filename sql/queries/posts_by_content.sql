-- Posts with words in the body, found by their stems.
-- depends: posts
-- uses: idx_posts_content_search

select p.id, p.title
  from posts p
 where base44_search(p.content) @@ plainto_tsquery('english', 'database migration');
