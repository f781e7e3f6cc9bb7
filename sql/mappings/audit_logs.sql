-- What becomes of an AuditLog record.
-- entity: AuditLog
-- depends: users
-- fields: id, table_name, record_id, action, old_values, new_values, user_id|author_id, timestamp,
--   created_date|created_at, updated_date|updated_at

select f.record_number,
       f.base44_id,
       base44_uuid(f.base44_id) as id,
       b44.trim(f.table_name) as table_name,
       v.record as record_id,
       b44.trim(f.action) as action,
       v.old_values,
       v.new_values,
       actor.id as user_id,
       coalesce(v.happened, v.created_date, migration.object_id_time(f.base44_id), v.updated_date, f.exported_at) as timestamp,
       array_remove(array[
         case when f.base44_id is null then 'missing_id' end,
         case when f.superseded then 'duplicate_id' end,
         case when f.table_name is null then 'missing_table_name' end,
         migration.too_long(b44.trim(f.table_name), 'table_name'),
         case when f.record_id is null then 'missing_record_id' end,
         case when f.action is null then 'missing_action' end,
         case when f.old_values is not null and v.old_values is null then 'invalid:old_values' end,
         case when f.new_values is not null and v.new_values is null then 'invalid:new_values' end,
         case when f.timestamp is not null and v.happened is null then 'invalid:timestamp' end,
         case when f.created_date is not null and v.created_date is null then 'invalid:created_at' end,
         case when f.updated_date is not null and v.updated_date is null then 'invalid:updated_at' end
       ], null) as reasons,
       array_remove(array[
         migration.repair(f.user_id is not null and actor.id is null, 'user_id', 'unknown_user', f.user_id, null),
         migration.repair(migration.repeats_keys(f.old_values, v.old_values), 'old_values', 'repeated_key', f.old_values, v.old_values::text),
         migration.repair(migration.repeats_keys(f.new_values, v.new_values), 'new_values', 'repeated_key', f.new_values, v.new_values::text)
       ], null) as repairs,
       -- What the target has no column for, and the text of a record's id that cannot be read back from its UUID.
       jsonb_strip_nulls(jsonb_build_object(
         'created_date', f.created_date,
         'updated_date', f.updated_date,
         'record_id', case when lower(b44.trim(f.record_id)) not in (v.record::text, coalesce(base44_object_id(v.record), ''))
           then f.record_id end
       )) as unmapped
  from source f
 cross join lateral (
   select base44_uuid(f.record_id) as record,
          migration.as_jsonb(f.old_values) as old_values,
          migration.as_jsonb(f.new_values) as new_values,
          migration.as_timestamp(f.timestamp) as happened,
          migration.as_timestamp(f.created_date) as created_date,
          migration.as_timestamp(f.updated_date) as updated_date
   offset 0
 ) v
  left join users actor on actor.id = base44_uuid(f.user_id) and actor.id <> '00000000-0000-8000-8000-000000000b44'
