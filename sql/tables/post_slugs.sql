-- The registry that keeps slugs unique across the partitions of posts, which no index of posts itself can.

create table if not exists post_slugs (
  slug text primary key,
  post_id uuid not null,
  post_created_at timestamptz not null
);

create unique index if not exists idx_post_slugs_post on post_slugs (post_id, post_created_at);

comment on table post_slugs is 'Slugs in use, and by which post';
comment on column post_slugs.slug is 'The slug';
comment on column post_slugs.post_id is 'posts.id';
comment on column post_slugs.post_created_at is 'posts.created_at, the other half of the post''s key';
