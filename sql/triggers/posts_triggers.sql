-- Rules for writes to posts by the application, whether to the table or to one of its partitions.
-- The migration's own load passes them by (b44.migrating): its rows were judged by the mapping, those that
-- break a rule for new writes are kept, and it registers slugs by statement, not by row.
-- on: posts
-- depends: post_functions, slug_functions, partition_functions, post_slugs, users

create or replace trigger trg_validate_post_update before update on posts
  for each row when (not b44.migrating('posts'))
  execute function validate_post_update();

create or replace trigger trg_posts_publish_permissions before insert on posts
  for each row when (new.published and not b44.migrating('posts'))
  execute function check_publish_permissions();

-- Only where it is published or changes hands: a view counted on an old post is no publication.
create or replace trigger trg_posts_republish_permissions before update of published, user_id on posts
  for each row when (
    new.published and (not old.published or new.user_id is distinct from old.user_id)
    and not b44.migrating('posts'))
  execute function check_publish_permissions();

create or replace trigger trg_posts_claim_slug before insert on posts
  for each row when (not b44.migrating('posts'))
  execute function claim_post_slug();

create or replace trigger trg_posts_rename_slug before update on posts
  for each row when (
    (old.slug, old.id, old.created_at) is distinct from (new.slug, new.id, new.created_at)
    and not b44.migrating('posts'))
  execute function claim_post_slug();

create or replace trigger trg_posts_release_slug after delete on posts
  for each row when (not b44.migrating('posts'))
  execute function release_post_slug();

create or replace trigger trg_posts_release_slugs after truncate on posts
  for each statement execute function release_all_post_slugs();

-- Partitions that are there already do not get the last one by themselves.
select b44.follow_truncate_triggers('posts');
