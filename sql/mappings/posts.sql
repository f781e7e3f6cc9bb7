-- What becomes of a Post record.
-- entity: Post
-- depends: users, categories, post_slugs, transform_functions, slug_functions
-- fields: id, title, content, status, published, publish_date|published_at, tags, category_id, user_id|author_id,
--   view_count, like_count, created_date|created_at, updated_date|updated_at, created_by_id|created_by
-- html: content
-- large_columns: content
-- unique_suffix: slug in post_slugs by post_id, made from title

-- Every text by which an export can name a user. To turn every name in an export into an id instead would take far longer,
-- as base44_uuid is slow for text that is no ObjectId.
with people as not materialized (
  select distinct on (named.who) named.who, named.id
    from (select m.base44_id as who, m.id from migration.migrated m where m.entity = 'users'
           union all select base44_object_id(u.id), u.id from users u
           union all select u.id::text, u.id from users u
           union all select 'e-mail ' || u.email, u.id from users u) named
    join users u on u.id = named.id and u.id <> '00000000-0000-8000-8000-000000000b44'
)
select t.record_number,
       t.base44_id,
       t.key as id,
       author.id as user_id,
       t.heading as title,
       t.content,
       coalesce(b44.slug(t.heading), 'post') as slug,
       t.is_published as published,
       case when t.is_published then coalesce(t.published_at, c.created_at) end as published_at,
       t.tag_list as tags,
       category.id as category_id,
       coalesce(t.views, 0) as view_count,
       coalesce(t.likes, 0) as like_count,
       c.created_at,
       coalesce(t.changed_at, c.created_at) as updated_at,
       coalesce(creator.id, author.id) as created_by,
       null::uuid as updated_by,
       false as name_given,
       array_remove(array[
         case when t.base44_id is null then 'missing_id' end,
         case when t.superseded then 'duplicate_id' end,
         case when author.id is null then 'orphan_user' end,
         case when t.heading is null then 'missing_title' end,
         case when length(t.heading) > 255 then 'title_too_long' end,
         case when t.content is null or length(t.content) <= 10 then 'short_content' end,
         case when t.published is not null and t.flag is null then 'invalid:published' end,
         case when t.publish_date is not null and t.published_at is null then 'invalid:published_at' end,
         case when t.tag_list is null then 'invalid:tags' end,
         -- A tag cannot be longer than all of them.
         case when length(t.tags) > 255 and b44.longest(t.tag_list) > 255 then 'tag_too_long' end,
         case when t.view_count is not null and t.views is null then 'invalid:view_count' end,
         case when t.like_count is not null and t.likes is null then 'invalid:like_count' end,
         case when t.created_date is not null and t.made_at is null then 'invalid:created_at' end,
         case when t.updated_date is not null and t.changed_at is null then 'invalid:updated_at' end
       ], null) as reasons,
       array_remove(array[
         migration.repair(t.content_changed, 'content', 'sanitized', t.content_exported, t.content),
         migration.repair(t.category_id is not null and category.id is null, 'category_id', 'unknown_category',
           t.category_id, null)
       ], null) as repairs,
       case when num_nonnulls(kept.status, kept.published, kept.publish_date, kept.created_by_id) > 0 then
         jsonb_strip_nulls(jsonb_build_object('status', kept.status, 'published', kept.published,
           'publish_date', kept.publish_date, case when kept.created_by_id ~ '@' then 'created_by' else 'created_by_id' end, kept.created_by_id)) end as unmapped
  from (
    select s.*,
           coalesce(s.flag, false) or coalesce(s.state = 'published', false) as is_published
      from (
        select f.*,
               base44_uuid(f.base44_id) as key,
               case when f.user_id is null and strpos(f.created_by_id, '@') > 0
                 then 'e-mail ' || lower(b44.trim(f.created_by_id) collate b44.unicode) collate "default"
                 else migration.id_key(coalesce(f.user_id, f.created_by_id)) end as author,
               case when strpos(f.created_by_id, '@') > 0
                 then 'e-mail ' || lower(b44.trim(f.created_by_id) collate b44.unicode) collate "default"
                 else migration.id_key(f.created_by_id) end as creator,
               base44_uuid(f.category_id) as category_key,
               b44.trim(f.title) as heading,
               lower(b44.trim(f.status) collate b44.unicode) as state,
               migration.as_boolean(f.published) as flag,
               migration.as_timestamp(f.publish_date) as published_at,
               transform_tags(f.tags) as tag_list,
               migration.as_integer(f.view_count) as views,
               migration.as_integer(f.like_count) as likes,
               migration.as_timestamp(f.created_date) as made_at,
               migration.as_timestamp(f.updated_date) as changed_at,
               clock_timestamp() as once  -- keeps each conversion to one evaluation; unlike "offset 0" it lets filters through
          from source f
      ) s
  ) t
  left join people author on author.who = t.author
  left join people creator on creator.who = t.creator
  left join categories category on category.id = t.category_key
 cross join lateral (
   select coalesce(t.made_at, migration.object_id_time(t.base44_id), t.changed_at, t.exported_at) as created_at
 ) c
 -- What the target's columns cannot tell: a state besides published and draft, a date of what is not published.
 cross join lateral (
   select case when t.state <> case when t.is_published then 'published' else 'draft' end then t.status end as status,
          case when t.is_published and not t.flag then t.published end as published,
          case when not t.is_published then t.publish_date end as publish_date,
          case when creator.id is null then t.created_by_id end as created_by_id
 ) kept
