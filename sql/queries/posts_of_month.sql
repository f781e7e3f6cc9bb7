-- All posts of a month. One partition is read, whole.
-- depends: posts
-- prunes: posts
-- since: 2024-01-01 00:00+00
-- until: 2024-02-01 00:00+00

select p.id, p.user_id, p.title, p.excerpt, p.published, p.created_at
  from posts p
 where p.created_at >= '2024-01-01 00:00+00'
   and p.created_at < '2024-02-01 00:00+00';
