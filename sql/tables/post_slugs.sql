-- The registry that keeps slugs and ids of posts unique across the partitions of posts, which no index of posts itself can.
-- access: none

create table if not exists post_slugs (
  slug text primary key,
  post_id uuid not null unique,
  post_created_at timestamptz not null
);

-- In an earlier version, one id could stand in two months. Where it does, all else goes on, and the check of identifiers
-- fails until one of them is gone.
do $$
declare
  twice text;
begin
  if not exists (select from pg_constraint where conrelid = 'post_slugs'::regclass and conname = 'post_slugs_post_id_key') then
    begin
      alter table post_slugs add constraint post_slugs_post_id_key unique (post_id);
    exception
      when unique_violation then
        select string_agg(d.post_id::text, ', ') into twice
          from (select post_id from post_slugs group by 1 having count(*) > 1 order by 1 limit 5) d;
        raise warning 'post_slugs: ids that posts of several months have: %', twice;
    end;
  end if;
  -- Of an earlier version; the constraint makes it useless.
  if exists (select from pg_constraint where conrelid = 'post_slugs'::regclass and conname = 'post_slugs_post_id_key')
      and to_regclass('idx_post_slugs_post') is not null then
    drop index idx_post_slugs_post;
  end if;
end
$$;

comment on table post_slugs is 'Slugs in use, and by which post';
comment on column post_slugs.slug is 'The slug';
comment on column post_slugs.post_id is 'posts.id';
comment on column post_slugs.post_created_at is 'posts.created_at, the other half of the post''s key';
