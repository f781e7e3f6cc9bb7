-- What becomes of a UserSession record.
-- entity: UserSession
-- depends: users
-- fields: id, user_id|author_id, session_data, expires_at, created_date|created_at, updated_date|updated_at

select f.record_number,
       f.base44_id,
       base44_uuid(f.base44_id) as id,
       owner.id as user_id,
       v.session_data,
       v.created_at,
       v.expires_at,
       array_remove(array[
         case when f.base44_id is null then 'missing_id' end,
         case when f.superseded then 'duplicate_id' end,
         case when owner.id is null then 'orphan_user' end,
         case when f.session_data is not null and v.session_data is null then 'invalid:session_data' end,
         case when f.expires_at is null then 'missing_expires_at' end,
         case when f.expires_at is not null and v.expires_at is null then 'invalid:expires_at' end,
         case when f.created_date is not null and v.created_date is null then 'invalid:created_at' end,
         case when f.updated_date is not null and v.updated_at is null then 'invalid:updated_at' end
       ], null) as reasons,
       array_remove(array[
         migration.repair(migration.repeats_keys(f.session_data, v.session_data), 'session_data', 'repeated_key', f.session_data,
           v.session_data::text)
       ], null) as repairs,
       -- The target has no such column, and reads it only where a creation date is lacking.
       case when f.updated_date is not null then jsonb_build_object('updated_date', f.updated_date) end as unmapped
  from source f
 cross join lateral (
   select migration.as_jsonb(f.session_data) as session_data,
          migration.as_timestamp(f.expires_at) as expires_at,
          c.created_date,
          coalesce(c.created_date, migration.object_id_time(f.base44_id), c.updated_at, f.exported_at) as created_at,
          c.updated_at
     from (select migration.as_timestamp(f.created_date) as created_date,
                  migration.as_timestamp(f.updated_date) as updated_at offset 0) c
   offset 0
 ) v
  left join users owner on owner.id = base44_uuid(f.user_id) and owner.id <> '00000000-0000-8000-8000-000000000b44'
