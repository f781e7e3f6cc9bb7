-- Rules for writes to posts by the application; the triggers that call them are in triggers/posts_triggers.sql. The
-- likes that count are those before the update, so that one statement cannot clear them and unpublish;
-- unpublishing clears published_at, as chk_posts_published_at wants it; and publishing is bound to its author here,
-- since a CHECK must not read another table. What reads users or keeps the registry of slugs acts with the owner's rights: whoever
-- writes a post has none on these.
-- depends: slug_functions

create or replace function validate_post_update() returns trigger
language plpgsql
set search_path = public, pg_temp
as $$
begin
  if old.published and not new.published then
    if old.like_count > 100 then
      raise exception 'Cannot unpublish posts with more than 100 likes'
        using errcode = 'check_violation', table = 'posts', constraint = 'trg_validate_post_update';
    end if;
    new.published_at := null;
  elsif new.published and not old.published and new.published_at is null then
    new.published_at := now();
  end if;
  return new;
end
$$;

create or replace function check_publish_permissions() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  if not exists (select from users u where u.id = new.user_id and u.active and u.email_verified) then
    raise exception 'post % cannot be published: its author % is not active and verified', new.id, new.user_id
      using errcode = 'check_violation', table = 'posts', constraint = 'chk_posts_publish_permissions';
  end if;
  return new;
end
$$;

-- The slug is taken in the registry before the row is written, so that the next row of the same statement sees it. Who
-- comes at the same time with the same words waits at the registry's primary key, and takes the next number then. No lock
-- is taken besides: an insert of a hundred thousand titles would need as many, more than the server has.
create or replace function claim_post_slug() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
declare
  held text;
  taken record;
  base text;
begin
  new.slug := b44.trim(new.slug);
  if tg_op = 'UPDATE' then
    delete from post_slugs s where s.slug = old.slug and s.post_id = old.id and s.post_created_at = old.created_at;
  else
    -- An insert that ends in ON CONFLICT writes no row of its own and must claim nothing. Planned each time, since a plan
    -- for any moment would lock every partition with its indexes.
    execute 'select p.slug from posts p where p.id = $1 and p.created_at = $2' into held using new.id, new.created_at;
    if held is not null then
      new.slug := coalesce(new.slug, held);
      return new;
    end if;
  end if;
  base := coalesce(b44.slug(coalesce(new.slug, new.title)), 'post');
  loop
    if new.slug is null or exists (select from post_slugs s where s.slug = new.slug and s.post_id <> new.id) then
      new.slug := generate_post_slug(base, new.user_id);
    end if;
    insert into post_slugs (slug, post_id, post_created_at) values (new.slug, new.id, new.created_at) on conflict do nothing;
    exit when found;
    select s.slug, s.post_created_at into taken from post_slugs s where s.post_id = new.id;
    if not found then
      new.slug := null;
    elsif taken.post_created_at is distinct from new.created_at then
      raise unique_violation using message = format('there is a post %s of another month already', new.id),
        detail = format('It was made on %s.', taken.post_created_at),
        schema = 'public', table = 'post_slugs', constraint = 'post_slugs_post_id_key';
    else
      -- A row that moves to another partition comes here a second time; or another session has just written this very post,
      -- and ours ends in ON CONFLICT; or it was taken out behind the triggers' back, and this one takes its place.
      execute 'select p.slug from posts p where p.id = $1 and p.created_at = $2' into held using new.id, new.created_at;
      if held is not null then
        new.slug := coalesce(new.slug, held);
      else
        update post_slugs s set slug = new.slug where s.post_id = new.id and s.slug <> new.slug;
      end if;
      exit;
    end if;
  end loop;
  return new;
end
$$;

create or replace function release_post_slug() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  delete from post_slugs s where s.slug = old.slug and s.post_id = old.id and s.post_created_at = old.created_at;
  return null;
end
$$;

-- Of the table, or of one of its partitions; the slugs of detached ones stay taken.
create or replace function release_all_post_slugs() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  if tg_relid = 'posts'::regclass then
    delete from post_slugs;
  elsif exists (select from b44.partition_bounds('posts') b where b.partition = tg_relid) then
    delete from post_slugs s using b44.partition_bounds('posts') b
     where b.partition = tg_relid and s.post_created_at >= b.first_moment and s.post_created_at < b.next_moment;
  elsif exists (select from pg_inherits h where h.inhrelid = tg_relid and h.inhparent = 'posts'::regclass) then
    delete from post_slugs s
     where s.post_created_at >= coalesce((select min(b.first_moment) from b44.partition_bounds('posts') b), '-infinity')
       and not exists (select from posts p where p.id = s.post_id and p.created_at = s.post_created_at);
  end if;
  return null;
end
$$;

comment on function validate_post_update() is
  'Keeps popular posts published, and published_at true to published';
comment on function check_publish_permissions() is 'Lets only active and verified users publish';
comment on function claim_post_slug() is 'Gives a post a slug of its own: a wanted one if it is free, else one made of it or of the title';
comment on function release_post_slug() is 'Frees the slug of a deleted post';
comment on function release_all_post_slugs() is 'Frees the slugs of posts, or of a partition, that is truncated';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  validate_post_update(),
  check_publish_permissions(),
  claim_post_slug(),
  release_post_slug(),
  release_all_post_slugs()
from public;
