-- What became of every record read. A record waits (pending) only while a load is under way.
-- depends: migration/exports, migration/migration_log, migration/quarantine, migration/conflicts, migration/repairs

create or replace view migration.accounting as
select s.entity,
       s.read,
       s.unchanged + coalesce(b.processed, 0) as migrated,
       s.deduplicated,
       coalesce(q.refused, 0) as quarantined,
       s.read - s.unchanged - s.deduplicated - coalesce(q.refused, 0)
         - (s.to_migrate - coalesce(b.refused, 0)) as unaccounted,
       s.to_migrate - coalesce(b.processed, 0) - coalesce(b.refused, 0) as pending,
       s.vanished,
       coalesce(c.conflicts, 0) as conflicts
  from migration.plans s
  left join lateral (
    select sum(l.records_processed + l.records_kept) as processed, sum(l.records_refused) as refused
      from migration.migration_log l
     where l.entity_type = s.entity and l.generation = s.generation and l.status = 'completed' and l.rolled_back_at is null
  ) b on true
  left join lateral (
    select count(*) as refused from migration.quarantine q
     where q.entity = s.entity and q.generation = s.generation and q.replayed_at is null
  ) q on true
  left join lateral (
    select count(*) as conflicts from migration.conflicts c where c.entity = s.entity and c.accepted_at is null
  ) c on true;

comment on view migration.accounting is 'read = migrated + deduplicated + quarantined, for every entity, once nothing is pending';

-- How far each entity is. The rate is that of the last ten minutes' batches, and from it comes the expected end.
create or replace view migration.progress as
select a.entity as entity_type,
       coalesce(b.total_batches, 0) as total_batches,
       coalesce(b.total_records, 0) as total_records,
       coalesce(b.completed_batches, 0) as completed_batches,
       coalesce(b.failed_batches, 0) as failed_batches,
       b.last_completed,
       case when a.read = 0 then 100.0 else round(100.0 * (a.read - a.pending) / a.read, 1) end as percentage,
       r.records_per_second,
       case when a.pending > 0 and r.records_per_second > 0
         then now() + make_interval(secs => (a.pending / r.records_per_second)::float8) end as expected_end
  from migration.accounting a
  left join lateral (
    select count(*) as total_batches,
           sum(l.records_processed) as total_records,
           count(*) filter (where l.status = 'completed') as completed_batches,
           count(*) filter (where l.status = 'failed') as failed_batches,
           max(l.completed_at) filter (where l.status = 'completed') as last_completed
      from migration.migration_log l
     where l.entity_type = a.entity and l.rolled_back_at is null
  ) b on true
  left join lateral (
    select round((sum(l.records_processed) / nullif(extract(epoch from max(l.completed_at) - min(l.started_at)), 0))::numeric, 1)
             as records_per_second
      from migration.migration_log l
     where l.entity_type = a.entity and l.status = 'completed' and l.completed_at > b.last_completed - interval '10 minutes'
  ) r on true;

comment on view migration.progress is 'Batches and records of each entity, how far it is, how fast it goes, and when it should be done';

-- Numbers alone, for those who may not read the records themselves.
create or replace view migration.quarantined_by_reason as
select q.entity, reason, count(*) as records
  from migration.quarantine q
  join migration.plans s on s.entity = q.entity and s.generation = q.generation
  cross join unnest(q.reasons) as reason
 where q.replayed_at is null
 group by q.entity, reason;

comment on view migration.quarantined_by_reason is 'How many records of each entity are in quarantine, by reason; one that has several is counted for each';

create or replace view migration.repaired_by_column as
select r.entity, r.column_name, count(*) as repairs
  from migration.repairs r
 group by r.entity, r.column_name;

comment on view migration.repaired_by_column is 'How many values of migrated records were changed rather than carried over, by column';
