-- Which version of the program's own tables and functions the database has.
-- depends: b44/schema

create table if not exists b44.runtime_version (
  only_row boolean primary key default true check (only_row),
  digest text not null,
  installed_at timestamptz not null default now()
);

comment on table b44.runtime_version is 'Which version of the program''s own tables and functions the database has';
comment on column b44.runtime_version.digest is 'SHA-256 of the files that made them, and MD5 of what they made';
comment on column b44.runtime_version.installed_at is 'When they were made or changed last';
