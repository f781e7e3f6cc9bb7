-- Batches of the migration for whoever calls them from psql: the next records of a table, of its earliest partition that is not
-- done, with the migration's own tables in the same transaction.
-- execute: b44_migrator

create or replace function migrate_users_batch(batch_size integer default 1000) returns integer
language sql
set search_path = public, pg_temp
return b44.migrate_batch('users', batch_size);

create or replace function migrate_posts_batch(batch_size integer default 1000) returns integer
language sql
set search_path = public, pg_temp
return b44.migrate_batch('posts', batch_size);

comment on function migrate_users_batch(integer) is 'Migrates the next users; returns how many, 0 when nothing is left';
comment on function migrate_posts_batch(integer) is 'Migrates the next posts; returns how many, 0 when nothing is left';

-- For the owner of the tables, who needs no grant, and for members of b44_migrator.
revoke all on routine
  migrate_users_batch(integer),
  migrate_posts_batch(integer)
from public;
