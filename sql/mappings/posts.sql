-- What becomes of a Post record.
-- entity: Post
-- depends: users, categories, post_slugs, identifier_functions, conversion_functions, transform_functions, slug_functions,
--   partition_functions
-- fields: id, title, content, status, published, publish_date|published_at, tags, category_id, user_id|author_id,
--   view_count, like_count, created_date|created_at, updated_date|updated_at, created_by_id
-- html: content
-- wide: content
-- numbered: slug in post_slugs by post_id

-- Each spelling of a person once, as base44_uuid is slow for text that is no ObjectId.
with people as materialized (
  select named.who, u.id
    from (select f.user_id as who from source f union select f.created_by_id from source f) named
    join users u on u.id = base44_uuid(named.who) and u.id <> '00000000-0000-8000-8000-000000000b44'
)
select f.record_number,
       f.base44_id,
       base44_uuid(f.base44_id) as id,
       author.id as user_id,
       v.title,
       f.content,
       coalesce(base44_slug(v.title), 'post') as slug,
       v.published,
       case when v.published then coalesce(v.published_at, v.created_at) end as published_at,
       v.tags,
       category.id as category_id,
       coalesce(v.view_count, 0) as view_count,
       coalesce(v.like_count, 0) as like_count,
       v.created_at,
       coalesce(v.updated_at, v.created_at) as updated_at,
       coalesce(creator.id, author.id) as created_by,
       null::uuid as updated_by,
       false as name_given,
       array_remove(array[
         case when f.base44_id is null then 'missing_id' end,
         case when f.superseded then 'duplicate_id' end,
         case when author.id is null then 'orphan_user' end,
         case when v.title is null then 'missing_title' end,
         case when length(v.title) > 255 then 'title_too_long' end,
         case when f.content is null or length(f.content) <= 10 then 'short_content' end,
         case when f.published is not null and migration.as_boolean(f.published) is null then 'invalid:published' end,
         case when f.publish_date is not null and v.published_at is null then 'invalid:published_at' end,
         case when v.tags is null then 'invalid:tags' end,
         case when f.view_count is not null and v.view_count is null then 'invalid:view_count' end,
         case when f.like_count is not null and v.like_count is null then 'invalid:like_count' end,
         case when f.created_date is not null and v.created_date is null then 'invalid:created_at' end,
         case when f.updated_date is not null and v.updated_at is null then 'invalid:updated_at' end
       ], null) as reasons,
       array_remove(array[
         migration.repair(f.content_changed, 'content', 'sanitized', f.content_exported, f.content),
         migration.repair(f.category_id is not null and category.id is null, 'category_id', 'unknown_category',
           f.category_id, null)
       ], null) as repairs,
       -- What the target's columns cannot tell: a state besides published and draft, a date of what is not published.
       nullif(jsonb_strip_nulls(jsonb_build_object(
         'status', case when lower(base44_trim(f.status)) not in ('published', 'draft') then f.status end,
         'publish_date', case when not v.published then f.publish_date end,
         'created_by_id', case when creator.id is null then f.created_by_id end)), '{}') as unmapped
  from source f
 cross join lateral (
   select base44_trim(f.title) as title,
          coalesce(migration.as_boolean(f.published), false)
            or coalesce(lower(base44_trim(f.status)) = 'published', false) as published,
          migration.as_timestamp(f.publish_date) as published_at,
          transform_tags(f.tags) as tags,
          migration.as_integer(f.view_count) as view_count,
          migration.as_integer(f.like_count) as like_count,
          c.created_date,
          coalesce(c.created_date, migration.object_id_time(f.base44_id), c.updated_at, f.exported_at) as created_at,
          c.updated_at
     from (select migration.as_timestamp(f.created_date) as created_date,
                  migration.as_timestamp(f.updated_date) as updated_at offset 0) c
   offset 0  -- keeps each conversion to one evaluation
 ) v
  left join people author on author.who = coalesce(f.user_id, f.created_by_id)
  left join people creator on creator.who = f.created_by_id
  left join categories category on category.id = base44_uuid(f.category_id)
