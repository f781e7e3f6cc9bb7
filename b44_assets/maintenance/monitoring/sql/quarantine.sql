-- Records that were not migrated, by entity.
select entity as entity, count(*) as records from migration.quarantine group by entity order by 2 desc, 1
