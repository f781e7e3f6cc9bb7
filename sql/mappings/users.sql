-- What becomes of a User record.
-- entity: User
-- depends: transform_functions
-- fields: id, email, username, full_name|display_name, avatar_url, role, verified|is_verified|email_verified,
--   disabled, active, last_login_at, created_date|created_at, updated_date|updated_at, created_by_id|created_by
-- unique_suffix: username in users by id, made from email, repaired
-- exchangeable_unique: email; released by email = 'b44-' || id || '@base44.invalid'
-- deferred_fk: created_by

with typed as materialized (
  select f.*,
         base44_uuid(f.base44_id) as key,
         lower(b44.trim(f.email) collate b44.unicode) collate "default" as address,
         b44.trim(f.avatar_url) as picture,
         coalesce(migration.as_timestamp(f.created_date), migration.object_id_time(f.base44_id),
           migration.as_timestamp(f.updated_date), f.exported_at) as made_at
    from source f
),
judged as (
  select t.*,
         array_remove(array[
           case when t.base44_id is null then 'missing_id' end,
           case when t.superseded then 'duplicate_id' end,
           case when t.address is null then 'missing_email' end,
           case when t.address !~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]+@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+$' then 'invalid_email' end,
           migration.too_long(t.address, 'email'),
           migration.too_long(lower(b44.trim(t.username) collate b44.unicode), 'username'),
           case when t.verified is not null and migration.as_boolean(t.verified) is null then 'invalid:email_verified' end,
           case when t.disabled is not null and migration.as_boolean(t.disabled) is null
                  or t.active is not null and migration.as_boolean(t.active) is null then 'invalid:active' end,
           case when t.last_login_at is not null and migration.as_timestamp(t.last_login_at) is null
             then 'invalid:last_login_at' end,
           case when t.created_date is not null and migration.as_timestamp(t.created_date) is null
             then 'invalid:created_at' end,
           case when t.updated_date is not null and migration.as_timestamp(t.updated_date) is null
             then 'invalid:updated_at' end
         ], null) as faults
    from typed t
),
-- Addresses that their users will not give up: those of the new system, edited ones, and those whose record is refused.
held as (
  select u.email, array_agg(u.id) as holders
    from users u
   where not exists (
     select from migration.following f
       join judged j on j.key = f.id and not j.superseded and j.faults = '{}'
      where f.entity = 'users' and f.id = u.id)
   group by u.email
),
-- Of several records with one address the earliest that is sound itself keeps it, unless the row of another one will not
-- give it up; an older version of a user is no rival.
rivals as (
  select j.*,
         case when not j.superseded and j.address is not null then
           row_number() over (
             partition by j.address, j.superseded
             order by cardinality(j.faults) > 0, coalesce(j.key <> all (held.holders), true), j.made_at, j.key nulls last,
               j.record_number) > 1
           or not coalesce(held.holders <@ array[j.key], true)
         else false end as second_holder
    from judged j
    left join held on held.email = j.address
),
accepted as materialized (
  select r.*,
         r.faults || case when r.second_holder then array['duplicate_email'] else '{}' end as reasons
    from rivals r
)
select a.record_number,
       a.base44_id,
       a.key as id,
       a.address as email,
       coalesce(lower(b44.trim(a.username) collate b44.unicode), split_part(a.address, '@', 1)) collate "default" as username,
       b44.trim(a.full_name) as display_name,
       case when a.picture ~ '^https?://' then a.picture end as avatar_url,
       transform_user_role(a.role) as role,
       coalesce(migration.as_boolean(a.verified), false) as email_verified,
       coalesce(not migration.as_boolean(a.disabled), migration.as_boolean(a.active), true) as active,
       migration.as_timestamp(a.last_login_at) as last_login_at,
       a.made_at as created_at,
       coalesce(migration.as_timestamp(a.updated_date), a.made_at) as updated_at,
       creator.id as created_by,
       null::uuid as updated_by,
       a.username is not null as name_given,
       a.reasons,
       array_remove(array[
         migration.repair(a.picture !~ '^https?://', 'avatar_url', 'not_a_web_address', a.avatar_url, null),
         migration.repair(
           lower(b44.trim(a.role) collate b44.unicode) not in ('superuser', 'admin', 'editor', 'moderator', 'author', 'user', 'guest'),
           'role', 'unknown_role', a.role, transform_user_role(a.role))
       ], null) as repairs,
       -- What the columns cannot tell: a creator who is no user, and an "active" that "disabled" gainsays.
       nullif(jsonb_strip_nulls(jsonb_build_object(
         case when a.created_by_id ~ '@' then 'created_by' else 'created_by_id' end, case when creator.id is null then a.created_by_id end,
         'active', case when migration.as_boolean(a.active) = migration.as_boolean(a.disabled) then a.active end)),
         '{}') as unmapped
  from accepted a
  left join (
    -- By id or by e-mail address; the addresses of the export go before those of earlier ones.
    select distinct on (named.who) named.who, named.id
      from (select s.key::text as who, s.key as id, 1 as rank from accepted s where s.reasons = '{}'
             union all select s.address, s.key, 1 from accepted s where s.reasons = '{}'
             union all select u.id::text, u.id, 2 from users u
             union all select u.email, u.id, 2 from users u) named
     where named.id <> '00000000-0000-8000-8000-000000000b44'
     order by named.who, named.rank
  ) creator on creator.who = b44.user_key(a.created_by_id)
