-- Where staged exports (base44) and the migration's own tables (migration) live; both may be dropped after cut-over.

create schema if not exists base44;
create schema if not exists migration;

comment on schema base44 is 'Exports of Base44 as they came';
comment on schema migration is 'Tables of the migration from Base44';
