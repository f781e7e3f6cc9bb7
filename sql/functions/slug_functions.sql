-- Unique web addresses for posts, kept by the registry post_slugs (bound when they are called, so it may come later).
-- execute: b44_readwrite

-- The first free one of base, base-2, base-3 …; the registry's primary key has the last word, so a caller that loses a
-- race asks again.
create or replace function generate_post_slug(title text, user_id uuid default null) returns text
language plpgsql stable security definer
set search_path = public, pg_temp
as $$
declare
  base constant text := coalesce(b44.slug(title), 'post');
  candidate text := base;
  counter integer := 1;
begin
  while exists (select from post_slugs s where s.slug = candidate) loop
    counter := counter + 1;
    candidate := base || '-' || counter;
  end loop;
  return candidate;
end
$$;

-- Kept by statement, not by row: a batch of thousands costs one insert. Writes that are not the migration's come after
-- the triggers by row (triggers/posts_triggers.sql), which see writes to a partition, too; then nothing is left to do.
create or replace function register_post_slugs() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  if tg_op = 'DELETE' then
    delete from post_slugs s using removed r where s.slug = r.slug and s.post_id = r.id and s.post_created_at = r.created_at;
  elsif tg_op = 'INSERT' and b44.migrating(tg_relid) then
    insert into post_slugs (slug, post_id, post_created_at) select a.slug, a.id, a.created_at from added a;
  elsif tg_op = 'INSERT' then
    insert into post_slugs (slug, post_id, post_created_at)
    select a.slug, a.id, a.created_at
      from added a
     where not exists (
       select from post_slugs s where s.slug = a.slug and s.post_id = a.id and s.post_created_at = a.created_at);
  else
    -- Most updates leave slug and key alone and cost a comparison only.
    delete from post_slugs s
     using (select slug, id, created_at from removed except select slug, id, created_at from added) r
     where s.slug = r.slug and s.post_id = r.id and s.post_created_at = r.created_at;
    insert into post_slugs (slug, post_id, post_created_at)
    select a.slug, a.id, a.created_at
      from (select slug, id, created_at from added except select slug, id, created_at from removed) a
     where not exists (
       select from post_slugs s where s.slug = a.slug and s.post_id = a.id and s.post_created_at = a.created_at);
  end if;
  return null;
end
$$;

comment on function register_post_slugs() is 'Keeps post_slugs equal to what posts holds';
comment on function generate_post_slug(text, uuid) is 'A slug that no post has yet, made from a title; user_id is kept for callers of the old signature';

-- For the owner of the tables, who needs no grant, and for members of b44_readwrite: whether a slug is taken tells of drafts, too.
revoke all on routine
  generate_post_slug(text, uuid),
  register_post_slugs()
from public;
