-- What becomes of a UserPreference record.
-- entity: UserPreference
-- key: user_id
-- depends: users
-- fields: id, user_id|author_id, preferences, created_date|created_at, updated_date|updated_at

with typed as materialized (
  select f.*,
         owner.id as owner_id,
         migration.as_jsonb(f.preferences) as document,
         coalesce(migration.as_timestamp(f.created_date), migration.object_id_time(f.base44_id),
           migration.as_timestamp(f.updated_date), f.exported_at) as made_at,
         migration.as_timestamp(f.updated_date) as changed_at
    from source f
    left join users owner on owner.id = base44_uuid(f.user_id) and owner.id <> '00000000-0000-8000-8000-000000000b44'
),
judged as (
  select t.*,
         array_remove(array[
           case when t.base44_id is null then 'missing_id' end,
           case when t.superseded then 'duplicate_id' end,
           case when t.owner_id is null then 'orphan_user' end,
           case when t.preferences is not null and t.document is null then 'invalid:preferences' end,
           case when t.created_date is not null and migration.as_timestamp(t.created_date) is null
             then 'invalid:created_at' end,
           case when t.updated_date is not null and t.changed_at is null then 'invalid:updated_at' end
         ], null) as faults
    from typed t
),
-- The user is the key, so several documents of one user are versions of one: the newest sound one stays.
accepted as (
  select j.*,
         j.faults || case
           when not j.superseded and j.owner_id is not null and row_number() over (
             partition by j.owner_id, j.superseded
             order by cardinality(j.faults) > 0, coalesce(j.changed_at, j.made_at) desc, j.record_number desc) > 1
             then array['duplicate_user']
           else '{}' end as reasons
    from judged j
)
select a.record_number,
       a.base44_id,
       a.owner_id as user_id,
       coalesce(a.document, '{}') as preferences,
       a.made_at as created_at,
       coalesce(a.changed_at, a.made_at) as updated_at,
       a.reasons,
       array_remove(array[
         migration.repair(migration.repeats_keys(a.preferences, a.document), 'preferences', 'repeated_key', a.preferences, a.document::text)
       ], null) as repairs,
       null::jsonb as unmapped
  from accepted a
