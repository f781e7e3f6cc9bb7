-- Lists of posts out of an index alone. As part of the key title and excerpt would cost order and
-- room on every level of the tree; here they are included. Its key column published, always true in these rows, is left
-- out; id is added: the query recent_posts reads it, and pages are cut at (created_at, id).
-- on: posts

create index if not exists idx_posts_list on posts (user_id, published_at desc) include (title, excerpt)
  where published = true;
create index if not exists idx_posts_published_covering on posts (created_at desc, id desc)
  include (user_id, category_id, title, excerpt) where published = true;
