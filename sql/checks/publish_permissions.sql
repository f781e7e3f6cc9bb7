-- The author of a published post is active and verified. Posts that came from Base44 otherwise are kept: verify their authors, or
-- unpublish them.
-- on: posts
-- severity: warn
-- depends: users

select p.id, p.user_id
  from posts p
  join users u on u.id = p.user_id
 where p.published and not (u.active and u.email_verified)
 order by p.created_at, p.id;
