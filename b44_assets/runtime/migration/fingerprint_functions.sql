-- Tells whether a plan is still of what it was made of.
-- depends: migration/migrated

-- What a plan depends on: what it was made of, and what the tables that its mapping reads hold from the migration.
create or replace function migration.fingerprint_of(made_of text, reads text[]) returns text
language plpgsql
stable
set search_path = public, pg_temp
as $$
begin
  return encode(sha256(convert_to(made_of || coalesce(
    (select string_agg(format(E'\n%s %s %s', name, held.records, held.last_batch) || coalesce(' ' || held.updates, ''),
                       '' order by place)
       from unnest(reads) with ordinality as read (name, place)
      -- Of updates all batches, not the last: one may be taken back, and later ones stay.
      cross join lateral (select count(*) as records, max(m.batch_number) as last_batch, sum(m.updated_batch) as updates
                            from migration.migrated m where m.entity = name) held), ''), 'UTF8')), 'hex');
end
$$;

comment on function migration.fingerprint_of(text, text[]) is
  'Digest of what a plan depends on: the same fingerprint gives the same plan';
revoke all on function migration.fingerprint_of(text, text[]) from public;
