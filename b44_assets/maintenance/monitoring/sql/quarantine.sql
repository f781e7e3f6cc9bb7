-- Records that wait for their correction, by entity. The view counts them for whoever may not read the records.
select entity as entity, quarantined as records from migration.accounting where quarantined > 0 order by 2 desc, 1
