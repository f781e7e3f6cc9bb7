-- Posts with words in the title, found by their stems.
-- depends: posts
-- uses: idx_posts_title_search

select p.id, p.title
  from posts p
 where base44_search(p.title) @@ plainto_tsquery('english', 'database migration');
