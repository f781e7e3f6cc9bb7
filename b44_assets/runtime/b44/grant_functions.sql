-- What is granted on a relation, as statements that grant it on another one.
-- depends: b44/upgrade_from_0_1

create or replace function b44.grants_of(relation regclass, recipient text, out statement text, out part name) returns setof record
language sql stable
set search_path = public, pg_temp
as $$
  select format('grant %s%s on %s to %s%s', g.privilege_type, case when a.part is not null then format(' (%I)', a.part) end, recipient,
                case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                case when g.is_grantable then ' with grant option' else '' end),
         a.part
    from pg_class c
   cross join lateral (
     select null::name as part, c.relacl as acl
      union all
     select attname, attacl from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped
   ) a
   cross join aclexplode(a.acl) g
   where c.oid = relation and g.grantee <> c.relowner
$$;

comment on function b44.grants_of(regclass, text) is 'Statements that grant on another relation what is granted on this one; part is the column, where it is of one';

revoke all on routine b44.grants_of(regclass, text) from public;
