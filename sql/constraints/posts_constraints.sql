-- What every post must be. chk_posts_publish_permissions is none of these: a CHECK must not read another table,
-- so it is a trigger (posts_triggers). An infinite time lies in no month and on no page, and a title's length is that
-- with the spaces around it. A tag is as long at most as those that are migrated: longer ones would fit into no index, and the
-- application would be told of that rather than of the tag.
-- on: posts
-- depends: users, categories

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'posts'::regclass and conname = 'chk_posts_title_length') then
    alter table posts add constraint chk_posts_title_length
      check (length(trim(title)) >= 1 and length(title) <= 255);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'posts'::regclass and conname = 'chk_posts_published_at') then
    alter table posts add constraint chk_posts_published_at
      check ((published = false and published_at is null) or (published = true and published_at is not null));
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'posts'::regclass and conname = 'chk_posts_finite_times') then
    alter table posts add constraint chk_posts_finite_times
      check (isfinite(created_at) and isfinite(updated_at) and isfinite(published_at));
  end if;
end $$;

-- What is short as a whole is not looked at tag by tag.
do $$ begin
  if not exists (select from pg_constraint where conrelid = 'posts'::regclass and conname = 'chk_posts_tags_length') then
    alter table posts add constraint chk_posts_tags_length
      check (length(array_to_string(tags, '')) < 256 or b44.longest(tags) < 256);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'posts'::regclass and conname = 'fk_posts_user_id') then
    alter table posts add constraint fk_posts_user_id foreign key (user_id) references users (id) on delete cascade;
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'posts'::regclass and conname = 'fk_posts_category_id') then
    alter table posts add constraint fk_posts_category_id
      foreign key (category_id) references categories (id) on delete set null;
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'posts'::regclass and conname = 'fk_posts_created_by') then
    alter table posts add constraint fk_posts_created_by foreign key (created_by) references users (id);
  end if;
end $$;

do $$ begin
  if not exists (select from pg_constraint where conrelid = 'posts'::regclass and conname = 'fk_posts_updated_by') then
    alter table posts add constraint fk_posts_updated_by foreign key (updated_by) references users (id);
  end if;
end $$;
