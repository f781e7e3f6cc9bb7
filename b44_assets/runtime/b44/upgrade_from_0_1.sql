-- What version 0.1 has made in schema public, brought to schema b44.
-- depends: b44/schema

-- Version 0.1 had its functions in public, with names that begin with base44_. They are moved and not made anew: indexes,
-- generated columns and triggers go on with them.
do $$
declare
  item record;
begin
  for item in
    select p.oid, p.oid::regprocedure as routine, substr(p.proname, 8) as new_name
      from pg_proc p
     where p.pronamespace = 'public'::regnamespace and p.proname = any(array[
         'base44_add_unvalidated_checks', 'base44_adopt_access', 'base44_adopt_settings', 'base44_attach',
         'base44_build_partition', 'base44_columns_of', 'base44_copy_changes', 'base44_copy_rows',
         'base44_create_partition', 'base44_create_partitions', 'base44_delete_rows', 'base44_describe_partition',
         'base44_drain_begin', 'base44_drain_catch_up', 'base44_drain_clear', 'base44_drain_constrain',
         'base44_drain_copy', 'base44_drain_discard', 'base44_drain_equal', 'base44_drain_files', 'base44_drain_finish',
         'base44_drain_outside', 'base44_drain_settle', 'base44_drain_step', 'base44_drain_swap', 'base44_drain_verify',
         'base44_drain_watch', 'base44_draining', 'base44_follow_truncate_triggers', 'base44_has_rows',
         'base44_incoming_keys', 'base44_index_form', 'base44_is_json', 'base44_is_timestamp', 'base44_json_depth',
         'base44_key_of', 'base44_listed', 'base44_lock_briefly', 'base44_lock_partitions', 'base44_lock_to_attach',
         'base44_make_mirror', 'base44_manage_partitions', 'base44_migrating', 'base44_missing_partitions',
         'base44_name_uuid', 'base44_note_refresh', 'base44_older_snapshots', 'base44_outside', 'base44_paced', 
         'base44_partition_bounds', 'base44_partition_form', 'base44_partitioning', 'base44_pause', 'base44_period', 'base44_present',
         'base44_qualified', 'base44_referenced_tables', 'base44_rename_partition', 'base44_replace_partition',
         'base44_same_key', 'base44_searchable', 'base44_sha1', 'base44_slug', 'base44_standing_snapshots',
         'base44_tied_to', 'base44_trim', 'base44_truncate_trigger', 'base44_user_key', 'base44_wait_as_before',
         'base44_within'])
       and not exists (
         select from pg_proc q
          where q.pronamespace = 'b44'::regnamespace and q.proname = substr(p.proname, 8) and q.proargtypes = p.proargtypes)
  loop
    execute format('alter routine %s set schema b44', item.routine);
    execute format('alter routine %s rename to %I', item.oid::regprocedure, item.new_name);
  end loop;
  if to_regprocedure('b44.drain_settle(text, jsonb)') is not null then
    alter function b44.drain_settle(text, jsonb) rename to drain_wait_for_snapshots;
  end if;
  if to_regcollation('public.base44_unicode') is not null and to_regcollation('b44.unicode') is null then
    alter collation public.base44_unicode set schema b44;
    alter collation b44.base44_unicode rename to unicode;
  end if;
end
$$;
