-- Posts that have a tag.
-- depends: posts
-- uses: idx_posts_tags_gin

select p.id, p.title
  from posts p
 where p.tags @> array['postgresql'];
