-- Group roles that every app's database has, what they may do, and for whom a session acts. Logins are made by people, and are
-- given one of these.
-- depends: b44/schema

create or replace function b44.standard_roles() returns table (role_name name, purpose text)
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  values
    ('b44_owner'::name, 'Owns the tables, where they were given to it; may change the schema'),
    ('b44_migrator', 'Moves records: reads and writes all rows, and may pass the rules for the application''s writes'),
    ('b44_readwrite', 'The application: reads and writes rows, as far as policies let the user for whom it acts'),
    ('b44_readonly', 'People and reports: reads what policies show to everybody'),
    ('b44_monitor', 'Monitoring: reads the server''s statistics and how far the migration is, no rows of the app')
$$;

-- Those that are there and are groups: one with a login, or with powers of its own, is somebody's, and is given nothing.
create or replace function b44.group_roles() returns table (role_oid oid, role_name name)
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select r.oid, r.rolname
    from b44.standard_roles() s
    join pg_roles r on r.rolname = s.role_name
   where not (r.rolcanlogin or r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls)
$$;

create or replace function b44.is_member(who name, role_name name) returns boolean
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from b44.group_roles() g where g.role_name = $2 and pg_has_role($1, g.role_oid, 'USAGE'))
$$;

-- For whom the application acts: it says so in a setting, and it alone is believed. Whoever is no member of b44_readwrite is nobody
-- to policies, whatever the setting says.
create or replace function b44.acting_user() returns uuid
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case when b44.is_member(current_user, 'b44_readwrite') then nullif(current_setting('b44.user_id', true), '')::uuid end
$$;

create or replace function b44.acting_role() returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case when b44.is_member(current_user, 'b44_readwrite') then coalesce(nullif(current_setting('b44.role', true), ''), 'user') end
$$;

-- Whether a session sees and writes the rows of all: the migration's by who it is, the application's own work by its word.
create or replace function b44.acts_for_all() returns boolean
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select b44.is_member(current_user, 'b44_migrator') or coalesce(b44.acting_role() = 'service', false)
$$;

-- Makes roles that are missing. Returns those that this role may not make or give their membership, and those that are somebody's.
create or replace function b44.make_standard_roles(out refused name[], out foreign_roles name[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  item record;
begin
  refused := '{}';
  -- Roles are the server's: another database's migration may make them at this moment.
  for item in
    select s.* from b44.standard_roles() s where not exists (select from pg_roles r where r.rolname = s.role_name)
  loop
    begin
      execute format('create role %I nologin', item.role_name);
      execute format('comment on role %I is %L', item.role_name, item.purpose);
    exception
      when duplicate_object or unique_violation then
        null;
      when insufficient_privilege then
        refused := refused || item.role_name;
    end;
  end loop;
  select array_agg(r.rolname) into foreign_roles
    from pg_roles r join b44.standard_roles() s on s.role_name = r.rolname
   where not exists (select from b44.group_roles() g where g.role_oid = r.oid);
  if exists (select from b44.group_roles() g where g.role_name = 'b44_monitor')
     and not exists (select from pg_auth_members m
                      where m.roleid = to_regrole('pg_monitor') and m.member = to_regrole('b44_monitor')) then
    begin
      grant pg_monitor to b44_monitor;
    exception
      when unique_violation then
        null;
      when insufficient_privilege then
        refused := refused || 'pg_monitor'::name;
    end;
  end if;
end
$$;

-- Without the argument `opened`, as it was before.
drop function if exists b44.standard_access(jsonb, jsonb, boolean);

-- The statements that give the group roles what they should have and take what they should not, none where all is as it should be.
-- Rows of a partitioned table are read through the table: its partitions are nobody's to read, whatever default privileges gave.
create or replace function b44.standard_access(relations jsonb, routines jsonb, partitions boolean, opened boolean) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with
  listed as (
    select c.oid, c.relkind, r.access
      from jsonb_to_recordset(relations) r (name text, access text, secured boolean)
      join pg_class c on c.relnamespace = 'public'::regnamespace and c.relname = r.name and c.relkind in ('r', 'p', 'v', 'm', 'f')
     where not r.secured or c.relrowsecurity
  ),
  rights (role_name, access, privileges) as (
    values ('b44_readwrite', 'write', '{SELECT,INSERT,UPDATE,DELETE}'::text[]),
           ('b44_readwrite', 'append', '{SELECT,INSERT}'),
           ('b44_readwrite', 'read', '{SELECT}'),
           ('b44_readonly', 'write', '{SELECT}'),
           ('b44_readonly', 'append', '{SELECT}'),
           ('b44_readonly', 'read', '{SELECT}'),
           ('b44_migrator', 'write', '{SELECT,INSERT,UPDATE,DELETE}'),
           ('b44_migrator', 'append', '{SELECT,INSERT,UPDATE,DELETE}'),
           ('b44_migrator', 'read', '{SELECT,INSERT,UPDATE,DELETE}'),
           ('b44_migrator', 'none', '{SELECT,INSERT,UPDATE,DELETE}')
  ),
  of_program (relation, role_name) as (
    -- The migration's own tables may be gone.
    values (to_regclass('migration.accounting'), 'b44_monitor'), (to_regclass('migration.migration_log'), 'b44_monitor'),
           (to_regclass('migration.progress'), 'b44_monitor'), (to_regclass('migration.unmapped_entities'), 'b44_monitor'),
           (to_regclass('migration.quarantined_by_reason'), 'b44_monitor'),
           (to_regclass('migration.repaired_by_column'), 'b44_monitor'),
           (to_regclass('migration.accounting'), 'b44_migrator'), (to_regclass('migration.migration_log'), 'b44_migrator'),
           (to_regclass('migration.quarantine'), 'b44_migrator'), (to_regclass('migration.repairs'), 'b44_migrator'),
           (to_regclass('migration.unmapped'), 'b44_migrator'), (to_regclass('migration.conflicts'), 'b44_migrator'),
           (to_regclass('b44.migration_state'), 'b44_monitor'), (to_regclass('b44.check_results'), 'b44_monitor'),
           (to_regclass('b44.view_refreshes'), 'b44_monitor'), (to_regclass('b44.runtime_version'), 'b44_monitor')
  ),
  objects (kind, oid, shown, owner, acl, exact) as (
    select 'TABLE', c.oid, format('%I.%I', n.nspname, c.relname), c.relowner, c.relacl, true
      from (select l.oid from listed l
             union select t.relid from listed l cross join lateral pg_partition_tree(l.oid) t where partitions and t.level > 0) k
      join pg_class c on c.oid = k.oid join pg_namespace n on n.oid = c.relnamespace
    union all
    select 'SEQUENCE', c.oid, format('%I.%I', n.nspname, c.relname), c.relowner, c.relacl, false
      from listed l
      join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = l.oid and d.deptype = 'a'
       and d.classid = 'pg_class'::regclass
      join pg_class c on c.oid = d.objid and c.relkind = 'S' join pg_namespace n on n.oid = c.relnamespace
    union all
    select distinct 'TABLE', c.oid, format('%I.%I', n.nspname, c.relname), c.relowner, c.relacl, false
      from of_program o join pg_class c on c.oid = o.relation join pg_namespace n on n.oid = c.relnamespace
    union all
    select 'ROUTINE', p.oid, p.oid::regprocedure::text, p.proowner, p.proacl, false
      from pg_proc p
     where p.pronamespace = 'public'::regnamespace and p.proname in (select r.name from jsonb_to_recordset(routines) r (name text))
        or p.oid = to_regprocedure('b44.migrate_batch(text, integer)')
    union all
    select 'SCHEMA', n.oid, quote_ident(n.nspname), n.nspowner, n.nspacl, false
      from pg_namespace n where n.nspname in ('public', 'migration')
  ),
  wanted (oid, role_name, privilege) as (
    select l.oid, r.role_name, p
      from listed l join rights r on r.access = l.access cross join unnest(r.privileges) p
     where p = 'SELECT' or l.relkind not in ('v', 'm')
    union
    select d.objid, r.role_name, 'USAGE'
      from listed l join rights r on r.access = l.access and 'INSERT' = any (r.privileges)
      join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = l.oid and d.deptype = 'a'
       and d.classid = 'pg_class'::regclass
      join pg_class c on c.oid = d.objid and c.relkind = 'S'
    union
    select o.relation, o.role_name, 'SELECT' from of_program o where o.relation is not null
    union
    -- What everybody may execute anyway needs no grant.
    select p.oid, r.role_name, 'EXECUTE'
      from jsonb_to_recordset(routines) r (name text, role_name text)
      join pg_proc p on p.pronamespace = 'public'::regnamespace and p.proname = r.name and not has_function_privilege('public', p.oid, 'EXECUTE')
    union
    select to_regprocedure('b44.migrate_batch(text, integer)'), 'b44_migrator', 'EXECUTE'
    union
    select 'public'::regnamespace, r.role_name, 'USAGE'
      from (values ('b44_owner'), ('b44_migrator'), ('b44_readwrite'), ('b44_readonly')) r (role_name)
    union
    select 'public'::regnamespace, 'b44_owner', 'CREATE'
    union
    select to_regnamespace('migration'), r.role_name, 'USAGE' from (values ('b44_migrator'), ('b44_monitor')) r (role_name)
  ),
  found as (
    select o.oid, g.role_name, a.privilege_type as privilege
      from objects o cross join lateral aclexplode(o.acl) a join b44.group_roles() g on g.role_oid = a.grantee
     where a.grantee <> o.owner
  ),
  defaults (kind, role_name, privileges, wanted) as (
    values ('TABLES', 'b44_readwrite', '{SELECT,INSERT,UPDATE,DELETE}'::text[], opened),
           ('TABLES', 'b44_readonly', '{SELECT}', opened),
           ('TABLES', 'b44_migrator', '{SELECT,INSERT,UPDATE,DELETE}', true),
           ('SEQUENCES', 'b44_readwrite', '{USAGE}', opened),
           ('SEQUENCES', 'b44_migrator', '{USAGE}', true)
  ),
  given_by_default (kind, role_name, privilege) as (
    select case f.defaclobjtype when 'r' then 'TABLES' else 'SEQUENCES' end, g.role_name, a.privilege_type
      from pg_default_acl f
     cross join lateral aclexplode(f.defaclacl) a
      join b44.group_roles() g on g.role_oid = a.grantee
     where f.defaclrole = (select r.oid from pg_roles r where r.rolname = current_user) and f.defaclnamespace = 'public'::regnamespace and f.defaclobjtype in ('r', 'S')
  )
  select format('REVOKE %s ON %s %s FROM %I', string_agg(f.privilege, ', ' order by f.privilege), o.kind, o.shown, f.role_name)
    from found f join objects o on o.oid = f.oid and o.exact
   where pg_has_role(o.owner, 'USAGE')
     and not exists (select from wanted w where w.oid = f.oid and w.role_name = f.role_name and w.privilege = f.privilege)
   group by o.kind, o.shown, f.role_name
  union all
  select format('GRANT %s ON %s %s TO %I', string_agg(distinct w.privilege, ', ' order by w.privilege), o.kind, o.shown, w.role_name)
    from wanted w join objects o on o.oid = w.oid
   where pg_has_role(o.owner, 'USAGE')
     and w.role_name in (select g.role_name from b44.group_roles() g where g.role_oid <> o.owner)
     and not exists (select from found f where f.oid = w.oid and f.role_name = w.role_name and f.privilege = w.privilege)
   group by o.kind, o.shown, w.role_name
  union all
  -- Of what whoever migrates makes.
  select format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA public GRANT %s ON %s TO %I',
                current_user, array_to_string(d.privileges, ', '), d.kind, d.role_name)
    from defaults d
    join b44.group_roles() g on g.role_name = d.role_name
   where d.wanted
     and exists (
       select from unnest(d.privileges) p where (d.kind, d.role_name, p) not in (select * from given_by_default))
  union all
  select format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA public REVOKE %s ON %s FROM %I',
                current_user, string_agg(f.privilege, ', ' order by f.privilege), f.kind, f.role_name)
    from given_by_default f
    join defaults d on d.kind = f.kind and d.role_name = f.role_name and not d.wanted
   group by f.kind, f.role_name
$$;

-- Gives all that the program and the app have in this database to a role; what belongs to it already is passed over.
create or replace function b44.set_owner(new_owner name) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted constant oid := (select r.oid from pg_roles r where r.rolname = new_owner);
  item record;
  given integer := 0;
begin
  if wanted is null then
    raise undefined_object using message = format('there is no role %s', new_owner);
  end if;
  for item in
    with schemas as (
      select oid, nspname, nspowner from pg_namespace where nspname in ('public', 'b44', 'migration', 'base44')
    ),
    objects (class, oid, owner, statement) as (
      select 'pg_class'::regclass, c.oid, c.relowner,
             format('alter %s %I.%I', case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence'
               when 'f' then 'foreign table' else 'table' end, s.nspname, c.relname)
        from pg_class c join schemas s on s.oid = c.relnamespace
       where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
         -- Those of columns go with these.
         and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and c.relkind = 'S'
                            and d.deptype in ('a', 'i'))
      union all
      select 'pg_proc'::regclass, p.oid, p.proowner, format('alter routine %s', p.oid::regprocedure)
        from pg_proc p join schemas s on s.oid = p.pronamespace where p.prokind <> 'a'
      union all
      select 'pg_type'::regclass, t.oid, t.typowner, format('alter type %I.%I', s.nspname, t.typname)
        from pg_type t join schemas s on s.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid
       where t.typtype in ('d', 'e', 'r') or c.relkind = 'c'
      union all
      select 'pg_collation'::regclass, l.oid, l.collowner, format('alter collation %I.%I', s.nspname, l.collname)
        from pg_collation l join schemas s on s.oid = l.collnamespace
      union all
      select 'pg_statistic_ext'::regclass, x.oid, x.stxowner, format('alter statistics %I.%I', s.nspname, x.stxname)
        from pg_statistic_ext x join schemas s on s.oid = x.stxnamespace
      union all
      select 'pg_namespace'::regclass, s.oid, s.nspowner, format('alter schema %I', s.nspname)
        from schemas s where s.nspname <> 'public'
    )
    select o.statement
      from objects o
     where o.owner <> wanted
       and not exists (select from pg_depend d where d.classid = o.class and d.objid = o.oid and d.deptype = 'e')
  loop
    execute format('%s owner to %I', item.statement, new_owner);
    given := given + 1;
  end loop;
  return given;
end
$$;

comment on function b44.set_owner(name) is 'Gives what the program and the app have in this database to a role; returns how many objects';
comment on function b44.standard_roles() is 'Group roles that every database of this program has';
comment on function b44.group_roles() is 'Those of them that are there';
comment on function b44.is_member(name, name) is 'Whether a role has the rights of one of the group roles';
comment on function b44.acting_user() is 'The user for whom the application acts, by its setting b44.user_id; null for all others';
comment on function b44.acting_role() is 'As what the application acts, by its setting b44.role; null for all others';
comment on function b44.acts_for_all() is 'Whether the rows of everybody are seen: by the migration, and by the application where it acts for itself';
comment on function b44.make_standard_roles() is 'Makes the group roles that are missing';
comment on function b44.standard_access(jsonb, jsonb, boolean, boolean) is 'Statements that bring the rights of the group roles to what they should be';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.make_standard_roles(),
  b44.standard_access(jsonb, jsonb, boolean, boolean),
  b44.set_owner(name)
from public;
