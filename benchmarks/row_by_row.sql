-- Posts one by one, in batches of 1000 with a commit each, by a function of the server; `by_hand.sql` includes it on demand.
-- For each post a slug is looked for until one is free, and one that is refused costs no other.
create index on t_post (id);
create function move_posts(after uuid, size int) returns uuid language plpgsql as $$
declare
  post record;
  base text;
  free text;
  place int;
begin
  perform set_config('b44.migrating', pg_current_xact_id()::text, true);
  for post in
    select t.*, unguarded(p.content) as content from t_post t join s_post p using (n) where t.id > after order by t.id limit size
  loop
    after := post.id;
    continue when post.user_id is null or coalesce(post.title, '') = '' or length(post.title) > 255 or coalesce(post.length, 0) <= 10
      or post.tags is null or post.view_count is null or post.like_count is null or post.created_at is null
      or post.updated_at is null or post.publish_date is not null and post.published_at is null;
    base := coalesce(b44.slug(post.title), 'post');
    free := base;
    place := 1;
    while exists (select from post_slugs s where s.slug = free) loop
      place := place + 1;
      free := base || '-' || place;
    end loop;
    begin
      insert into posts (id, user_id, title, content, slug, published, published_at, tags, category_id, view_count, like_count,
        created_at, updated_at, created_by)
      values (post.id, post.user_id, post.title, post.content, free, coalesce(post.published, false),
        case when post.published then coalesce(post.published_at, post.created_at) end, post.tags, post.category_id,
        post.view_count, post.like_count, post.created_at, post.updated_at, post.created_by);
    exception when others then
      insert into rejects values ('posts', sqlerrm, to_jsonb(post));
    end;
  end loop;
  return after;
end $$;
create procedure move_all_posts() language plpgsql as $$
declare
  moved uuid := '00000000-0000-0000-0000-000000000000';
  before uuid;
begin
  loop
    before := moved;
    moved := move_posts(before, 1000);
    commit;
    exit when moved = before;
  end loop;
end $$;
call move_all_posts();
