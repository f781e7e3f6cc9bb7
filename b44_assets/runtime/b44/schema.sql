-- What stays in use once a migration is over: partitions, identifiers, text, the state of the migration.

create schema if not exists b44;

comment on schema b44 is 'What of the program stays in use once a migration is finished';

-- Functions are found by name whenever one runs that names them; what may be executed says each one's own EXECUTE.
grant usage on schema b44 to public;
