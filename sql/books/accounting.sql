-- What became of every record read. A record waits (pending) only while a load is under way.
-- depends: migration/exports, migration/migration_log, migration/quarantine

create or replace view migration.accounting as
select s.entity,
       s.read,
       s.unchanged + coalesce(b.processed, 0) + coalesce(q.replayed, 0) as migrated,
       s.deduplicated,
       coalesce(q.waiting, 0) as quarantined,
       s.read - s.unchanged - coalesce(b.processed, 0) - s.deduplicated - coalesce(q.refused, 0)
         - (s.to_migrate - coalesce(b.processed, 0)) as unaccounted,
       s.to_migrate - coalesce(b.processed, 0) as pending
  from migration.settlements s
  left join lateral (
    select sum(l.records_processed) as processed
      from migration.migration_log l
     where l.entity_type = s.entity and l.generation = s.generation and l.status = 'completed'
  ) b on true
  left join lateral (
    select count(*) as refused,
           count(*) filter (where q.replayed_at is null) as waiting,
           count(*) filter (where q.replayed_at is not null) as replayed
      from migration.quarantine q
     where q.entity = s.entity and q.generation = s.generation
  ) q on true;

comment on view migration.accounting is 'read = migrated + deduplicated + quarantined, for every entity, once nothing is pending';
