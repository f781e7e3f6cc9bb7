-- User-created posts and articles, a partition for each month (UTC) of created_at.
-- partitions: month of created_at
-- depends: slug_functions, post_slugs

create table if not exists posts (
  id uuid not null default gen_random_uuid(),
  user_id uuid not null,
  title text not null,
  content text not null,
  excerpt text generated always as (
    case when length(content) > 200 then substring(content, 1, 200) || '...' else content end
  ) stored,
  slug text not null,
  published boolean not null default false,
  published_at timestamptz,
  tags text[] default '{}',
  category_id uuid,
  view_count integer not null default 0,
  like_count integer not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  created_by uuid not null,
  updated_by uuid,
  primary key (id, created_at)
) partition by range (created_at);

create table if not exists posts_default partition of posts default;

-- Made where they are not there only: making one anew keeps writers waiting.
do $$
begin
  if not exists (select from pg_trigger where tgrelid = 'posts'::regclass and tgname = 'trg_posts_slugs_inserted') then
    create trigger trg_posts_slugs_inserted after insert on posts
      referencing new table as added for each statement execute function register_post_slugs();
  end if;
  if not exists (select from pg_trigger where tgrelid = 'posts'::regclass and tgname = 'trg_posts_slugs_updated') then
    create trigger trg_posts_slugs_updated after update on posts
      referencing old table as removed new table as added for each statement execute function register_post_slugs();
  end if;
  if not exists (select from pg_trigger where tgrelid = 'posts'::regclass and tgname = 'trg_posts_slugs_deleted') then
    create trigger trg_posts_slugs_deleted after delete on posts
      referencing old table as removed for each statement execute function register_post_slugs();
  end if;
end
$$;

comment on table posts is 'User-created posts and articles';
comment on column posts.id is 'Identifier; made from the Base44 id for migrated posts';
comment on column posts.user_id is 'Author';
comment on column posts.title is 'Title, 1 to 255 characters';
comment on column posts.content is 'Body; HTML is sanitized';
comment on column posts.excerpt is 'Auto-generated excerpt from content';
comment on column posts.slug is 'Part of the web address, unique among all posts (post_slugs)';
comment on column posts.published is 'Whether everyone may read it';
comment on column posts.published_at is 'When it was published; set exactly while published';
comment on column posts.tags is 'Array of tag strings for categorization';
comment on column posts.category_id is 'Category';
comment on column posts.view_count is 'How often it was viewed';
comment on column posts.like_count is 'How many liked it';
comment on column posts.created_at is 'When the record was made; decides the partition';
comment on column posts.updated_at is 'When the record last changed';
comment on column posts.created_by is 'Who made it; the author where that is unknown';
comment on column posts.updated_by is 'Who last changed it';
