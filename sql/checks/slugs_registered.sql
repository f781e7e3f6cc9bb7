-- The registry of slugs (post_slugs) holds what the posts hold.
-- on: posts
-- severity: error
-- depends: post_slugs

-- Those of detached months stay taken, and count as theirs.
with attached (since) as (
  select coalesce(min(b.first_moment), '-infinity') from b44.partition_bounds('posts') b
),
-- Equal numbers of rows with an equal sum of their 64-bit checksums hold the same; only otherwise each is looked for.
same (is_so) as (
  select (p.number, p.checksum) is not distinct from (s.number, s.checksum)
    from (select count(*), sum(hash_record_extended(row(slug, id, created_at), 0)) from posts) p (number, checksum),
         (select count(*), sum(hash_record_extended(row(slug, post_id, post_created_at), 0))
            from post_slugs
           where post_created_at >= (select since from attached)) s (number, checksum)
)
select case when s.slug is null then 'not registered' else 'registered for no post' end as problem,
       coalesce(p.slug, s.slug) as slug,
       coalesce(p.id, s.post_id) as post_id
  from (select slug, id, created_at from posts) p
  full join post_slugs s on s.slug = p.slug and s.post_id = p.id and s.post_created_at = p.created_at
 where not (select is_so from same)
   and (s.slug is null or p.id is null and s.post_created_at >= (select since from attached));
