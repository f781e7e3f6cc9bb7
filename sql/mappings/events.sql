-- What becomes of an Event record.
-- entity: Event
-- exchangeable_unique: user_id, event_date, cancelled; released by cancelled = true
-- depends: users
-- fields: id, user_id|author_id, title, event_date, cancelled, created_date|created_at, updated_date|updated_at,
--   created_by_id|created_by

with typed as materialized (
  select f.*,
         base44_uuid(f.base44_id) as key,
         owner.id as owner_id,
         creator.id as creator_id,
         migration.as_timestamp(f.event_date) as takes_place,
         migration.as_boolean(f.cancelled) as called_off,
         coalesce(migration.as_timestamp(f.created_date), migration.object_id_time(f.base44_id),
           migration.as_timestamp(f.updated_date), f.exported_at) as made_at
    from source f
    left join users owner on owner.id = base44_uuid(f.user_id) and owner.id <> '00000000-0000-8000-8000-000000000b44'
    left join (
      select u.id::text as who, u.id from users u union all select u.email, u.id from users u
    ) creator on creator.who = b44.user_key(f.created_by_id) and creator.id <> '00000000-0000-8000-8000-000000000b44'
),
judged as (
  select t.*,
         array_remove(array[
           case when t.base44_id is null then 'missing_id' end,
           case when t.superseded then 'duplicate_id' end,
           case when t.owner_id is null then 'orphan_user' end,
           case when t.event_date is null then 'missing_event_date' end,
           case when t.event_date is not null and t.takes_place is null then 'invalid:event_date' end,
           case when t.cancelled is not null and t.called_off is null then 'invalid:cancelled' end,
           case when t.created_date is not null and migration.as_timestamp(t.created_date) is null
             then 'invalid:created_at' end,
           case when t.updated_date is not null and migration.as_timestamp(t.updated_date) is null
             then 'invalid:updated_at' end
         ], null) as faults
    from typed t
),
-- Days that their events will not give up: those of the new system, edited ones, and those whose record is refused.
held as (
  select e.user_id, (e.event_date at time zone 'UTC')::date as day, array_agg(e.id) as holders
    from events e
   where not e.cancelled
     and not exists (
       select from migration.following f
         join judged j on j.key = f.id and not j.superseded and j.faults = '{}'
        where f.entity = 'events' and f.id = e.id)
   group by 1, 2
),
-- One event a user and day (UTC) unless cancelled: the earliest that is sound itself stays, or whose row will not go.
accepted as (
  select j.*,
         j.faults || case
           when not j.superseded and j.owner_id is not null and j.takes_place is not null and not coalesce(j.called_off, false)
             and (not coalesce(held.holders <@ array[j.key], true) or row_number() over (
               partition by j.owner_id, (j.takes_place at time zone 'UTC')::date, j.superseded, coalesce(j.called_off, false)
               order by cardinality(j.faults) > 0, coalesce(j.key <> all (held.holders), true), j.takes_place, j.made_at,
                 j.key nulls last, j.record_number) > 1)
             then array['duplicate_event_day']
           else '{}' end as reasons
    from judged j
    left join held on held.user_id = j.owner_id and held.day = (j.takes_place at time zone 'UTC')::date
)
select a.record_number,
       a.base44_id,
       a.key as id,
       a.owner_id as user_id,
       b44.trim(a.title) as title,
       a.takes_place as event_date,
       coalesce(a.called_off, false) as cancelled,
       a.made_at as created_at,
       coalesce(migration.as_timestamp(a.updated_date), a.made_at) as updated_at,
       coalesce(a.creator_id, '00000000-0000-8000-8000-000000000b44') as created_by,
       null::uuid as updated_by,
       a.reasons,
       '{}'::jsonb[] as repairs,
       case when a.creator_id is null and a.created_by_id is not null
         then jsonb_build_object(case when a.created_by_id ~ '@' then 'created_by' else 'created_by_id' end, a.created_by_id) end as unmapped
  from accepted a
