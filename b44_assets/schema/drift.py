"""Whether the database is what `sql/` says: everything of `sql/` built in a scratch schema and compared with public.

What belongs here: reading a schema into comparable facts, and naming the differences. What does not: mending them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from b44_assets.catalog import Kind, Spec, Statement, trigger_definitions
from b44_assets.schema.access_drift import DeclaredAccess, access_drift, declared_access, open_scratch
from b44_assets.schema.online_ddl import in_scratch_schema, of_migration_tables, run_together
from b44_assets.schema.privileges import roles_found
from b44_assets.schema.runtime import program_state, public_functions, runtime_drift
from b44_assets.schema.standard_roles import rights_to_change, standard_drift
from b44_assets.schema.unbuilt import rows_in_the_way_of
from b44_assets.schema.view_schemas import declared_views, found_views, view_schema_differences
from b44_assets.schema.views import NOTED_IN_COMMENT
from b44_assets.session import Connection, Session, absent_relations, scalar
from b44_assets.wording import some_of

Facts = dict[str, dict[str, str | None]]
"""Attribute to value, by object as it is named in a message (`column invoices.total`)."""

SHOWN = 5

_BUILT = (Kind.FUNCTION, Kind.TABLE, Kind.INDEX, Kind.CONSTRAINT, Kind.TRIGGER, Kind.POLICY, Kind.VIEW)


@dataclass(frozen=True)
class SchemaDrift:
    """What differs between the database and `sql/`.

    Attributes:
        compared: Objects that `sql/` gives.
        differences: What was changed or is gone of these, and added columns without which no row can be written; each in
            words.
        restricting: What was added to a table of `sql/` and bears on its rows: columns, constraints, unique indexes, triggers,
            policies.
        excess: What a role of `sql/`, or everybody, may do beyond what the files say, each in words.
        foreign: Other objects that `sql/` does not give: the application's own, and plain indexes on tables of `sql/`.
    """

    compared: int
    differences: tuple[str, ...]
    restricting: tuple[str, ...] = ()
    excess: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Every object is as `sql/` says, and nothing was added that bears on the rows of its tables, or on who has them."""
        return not self.differences and not self.restricting and not self.excess

    @property
    def only_restricting(self) -> bool:
        """Whether it does not pass for nothing but additions, with which everything of `sql/` works."""
        return not self.differences

    def message(self) -> str:
        """One line on what differs; or that nothing does."""
        if self.passed:
            others = f"; {len(self.foreign)} others are not of sql/" if self.foreign else ""
            return f"{self.compared} objects are as sql/ says{others}"
        said = (*self.differences, *(f"{name} is not in sql/" for name in self.restricting), *self.excess)
        return some_of(said, SHOWN, "; ")


def schema_drift(session: Session) -> SchemaDrift:
    """Compares public with `sql/`: objects, by definition and comment, their owners, and who may do what with them.

    What else there is belongs to the application, and is told of only. So is what other roles than those of the files may do.

    Everything is built in a transaction that is rolled back; nothing of it is ever seen by others. Left out are what is
    made as time goes on (partitions). What the program itself has made is compared with what it has installed.

    Raises:
        DatabaseError: A file of `sql/` does not run.
    """
    with session.connection("check schema drift") as conn:
        conn.execute("set client_min_messages = warning")

        absent, left_out, roles = _roles_declared(session, conn)
        wanted, declared = _built(session, conn, left_out, roles)
        of_views = [
            said
            for spec in session.catalog.of(Kind.VIEW_SCHEMA)
            for said in view_schema_differences(session, conn, spec)
        ]
        with conn.transaction():
            conn.execute("set transaction isolation level repeatable read read only")
            found = _facts(conn, "public")
            _pass_listed(conn, session, wanted, found)
            of_program = runtime_drift(conn, session)
            access = access_drift(conn, session, declared, roles)
            of_groups = standard_drift(conn, session)
    for spec in left_out:
        if spec.kind is Kind.POLICY:
            _forget_policies(spec.options["on"], wanted, found)
    for name in public_functions(session.catalog):
        for fact in [fact for fact in found if fact.startswith(f"function {name}(") and fact not in wanted]:
            del found[fact]
    restricting, foreign, needed = _added(found, wanted)
    return SchemaDrift(
        len(wanted),
        (
            *([of_program] if of_program else ()),
            *(f"role {name} is missing (b44 migrate makes it)" for name in sorted(absent)),
            *_differences(found, wanted),
            *of_views,
            *access.differences,
            *of_groups,
            *(f"{name} is not in sql/, and is not null without a default" for name in needed),
        ),
        restricting,
        access.excess,
        foreign,
    )


@dataclass(frozen=True)
class SchemaChanges:
    """What the files of `sql/` would make and change in a database.

    Attributes:
        missing: Objects that are not there yet, such as `table invoices`; what stands on a missing table is among them.
        different: What is otherwise than the files say, in words; a column's type is not changed by a migration.
        program: What becomes of the program's own schemas: `made`, `changed`, or `kept`.
    """

    missing: tuple[str, ...]
    different: tuple[str, ...] = ()
    program: str = "made"

    @property
    def nothing(self) -> bool:
        """Whether the schema is as the files say."""
        return not self.missing and not self.different and self.program == "kept"

    @property
    def missing_by_kind(self) -> dict[str, int]:
        """How many objects are not there yet, by kind; the columns of a table go with it."""
        counts: dict[str, int] = {}
        for name in self.missing:
            kind = name.partition(" ")[0]
            counts[kind] = counts.get(kind, 0) + 1
        return counts


def declared_objects(session: Session) -> Facts:
    """What the files of `sql/` come to, found by building them in a scratch schema of the session's database.

    Raises:
        DatabaseError: A file of `sql/` does not run.
    """
    with session.connection("build the schema") as conn:
        conn.execute("set client_min_messages = warning")
        _, left_out, roles = _roles_declared(session, conn)
        facts = _built(session, conn, left_out, roles)[0]
        absent = absent_relations(conn, [spec.name for spec in session.catalog.of(Kind.TABLE, Kind.VIEW)])
        for spec in session.catalog.of(Kind.VIEW_SCHEMA):
            # Of a table without records nothing is made on a server that is for planning.
            if absent.isdisjoint(spec.depends):
                facts |= declared_views(session, conn, spec)
        return facts


def schema_changes(session: Session, wanted: Facts, version: int, conn: Connection | None) -> SchemaChanges:
    """Compares the objects of a database with what the files come to; only reads.

    Args:
        session: For the catalogue.
        wanted: As `declared_objects` gives it, of a server of any version; altered here.
        version: Of that server, as in `server_version_num`.
        conn: With the database, in a transaction that only reads; None where there is no database yet.
    """
    found: Facts = {} if conn is None else _facts(conn, "public")
    if conn is not None:
        for spec in session.catalog.of(Kind.VIEW_SCHEMA):
            found |= found_views(conn, spec)
        if scalar(conn, "select to_regclass('migration.unbuilt')") is not None:
            _pass_listed(conn, session, wanted, found)
        if conn.info.server_version // 10_000 != version // 10_000:
            # Each major version writes the query of a view in its own way, and a function may be made for workers of newer ones alone.
            for facts in (*wanted.values(), *found.values()):
                facts.pop("query", None)
                facts.pop("parallel safety", None)
    missing = tuple(
        name
        for name in sorted(wanted)
        if name not in found and not (name.startswith("column ") and _owner(name) not in found)
    )
    different = [said for said in _differences(found, wanted) if not said.endswith(" is missing")]
    roles = [spec.name for spec in session.catalog.of(Kind.ROLE)]
    if conn is None:
        return SchemaChanges((*missing, *(f"role {name}" for name in roles)), tuple(different))
    there = roles_found(conn, roles)
    if rights := rights_to_change(conn, session):
        different.append(f"rights of the group roles: {some_of(rights, SHOWN, '; ')}")
    return SchemaChanges(
        (*missing, *(f"role {name}" for name in roles if name not in there)),
        tuple(different),
        program_state(conn, session),
    )


def _roles_declared(session: Session, conn: Connection) -> tuple[set[str], list[Spec], list[Spec]]:
    """Roles of the files that are not there; the files that cannot be built without them; and those of the other roles."""
    roles = session.catalog.of(Kind.ROLE)
    absent = {spec.name for spec in roles} - roles_found(conn, [spec.name for spec in roles]).keys()
    left_out = [spec for spec in session.catalog.of(Kind.ROLE, Kind.POLICY) if absent & {spec.name, *spec.depends}]
    return absent, left_out, [spec for spec in roles if spec not in left_out]


def _built(
    session: Session, conn: Connection, left_out: Sequence[Spec], roles: Sequence[Spec]
) -> tuple[Facts, DeclaredAccess]:
    """Everything of `sql/` in a transaction that is rolled back."""

    def build(conn: Connection, schema: str) -> tuple[Facts, DeclaredAccess]:
        open_scratch(conn, schema)
        for spec in session.catalog.of(*_BUILT):
            if spec not in left_out:
                made = [one for one in _making(spec) if not of_migration_tables(one.text)]
                run_together(conn, spec, [(one.line, one.text) for one in made])
        return _facts(conn, schema), declared_access(conn, schema, roles)

    return in_scratch_schema(session, conn, build)


def _pass_listed(conn: Connection, session: Session, wanted: Facts, found: Facts) -> None:
    """Takes a constraint that rows may break for what the files say, validated or not; and one that rows make impossible, too."""
    tables = {spec.options["on"] for spec in session.catalog.of(Kind.CONSTRAINT, Kind.INDEX) if spec.lists_unfit_rows}
    listed = {table: session.catalog.listed(table) for table in tables}
    impossible = rows_in_the_way_of(conn, {name for names in listed.values() for name in names})
    for table, names in listed.items():
        for name in names:
            for fact in (f"constraint {table}.{name}", f"index {table}.{name}"):
                if fact in found:
                    definition = found[fact].get("definition") or ""
                    found[fact]["definition"] = definition.removesuffix(" NOT VALID")
                elif name in impossible:
                    wanted.pop(fact, None)


def _forget_policies(table: str, *of_both: Facts) -> None:
    """Leaves out the row security of a table, whose policies name a role that is not there."""
    for facts in of_both:
        for name in [name for name in facts if name.startswith(f"policy {table}.")]:
            del facts[name]
        for attribute in ("row-level security", "forced row-level security"):
            facts.get(f"table {table}", {}).pop(attribute, None)


def _added(found: Facts, wanted: Facts) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Objects that `sql/` does not give: those that bear on rows of its tables, all others, and columns that rows need."""
    restricting: list[str] = []
    foreign: list[str] = []
    needed: list[str] = []
    for name in sorted(found.keys() - wanted.keys()):
        owner, facts = _owner(name), found[name]
        if owner is None:
            foreign.append(name)
        elif owner in wanted:
            kind = name.partition(" ")[0]
            given = any(facts.get(what) for what in ("default", "generated", "identity"))
            if kind == "column" and facts["not null"] == "true" and not given:
                needed.append(name)
            elif kind == "index" and not (facts["definition"] or "").startswith("unique "):
                foreign.append(name)
            else:
                restricting.append(name)
    return tuple(restricting), tuple(foreign), tuple(needed)


def _making(spec: Spec) -> Iterable[Statement]:
    """The statements that make what is compared; not those that go through partitions."""
    return (one.statement for one in trigger_definitions(spec)) if spec.kind is Kind.TRIGGER else spec.statements


def _differences(found: Facts, wanted: Facts) -> Iterator[str]:
    for name in sorted(wanted):
        owner = _owner(name)
        if name not in found:
            if owner is None or owner in found:
                yield f"{name} is missing"
        else:
            for attribute in sorted(found[name].keys() | wanted[name].keys()):
                is_now, should_be = found[name].get(attribute), wanted[name].get(attribute)
                if is_now != should_be and not (attribute == "comment" and _may_say(is_now, should_be)):
                    yield f"{name}: {attribute} is {_shown(is_now)}, sql/ says {_shown(should_be)}"


def _may_say(comment: str | None, wanted: str | None) -> bool:
    """Whether a comment is as good as the one that `sql/` gives: any is, where that gives none."""
    if wanted is None:
        return True
    if comment is None or (noted := NOTED_IN_COMMENT.search(comment)) is None:
        return False
    # Earlier versions put the note in place of the file's own last words.
    return comment[: noted.start()] == wanted.partition(", as of ")[0]


def _owner(name: str) -> str | None:
    """The table of a column, index, constraint, trigger or policy, whose absence says all."""
    kind, _, rest = name.partition(" ")
    return f"table {rest.partition('.')[0]}" if kind in ("column", "index", "constraint", "trigger", "policy") else None


def _shown(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= 120 else f"{value[:117]}…"


_RELATIONS = """
    select c.oid, c.relname, c.relkind from pg_class c
     where c.relnamespace = to_regnamespace(%(schema)s) and c.relkind in ('r', 'p', 'm', 'v', 'f') and not c.relispartition
       and c.relname not like 'base44\\_%%'
       -- A detached month or year, kept as a table.
       and not exists (select from pg_partitioned_table p join pg_class t on t.oid = p.partrelid
                        where p.partstrat = 'r' and t.relnamespace = c.relnamespace
                          and c.relname ~ ('^' || t.relname || '_[0-9]{4}(_[0-9]{2})?$'))
       and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
"""
_QUERIES = {
    "table": """
        select r.relname,
               jsonb_build_object(
                 'kind', case r.relkind when 'm' then 'materialized view' when 'v' then 'view' when 'f' then 'foreign table'
                           else 'table' end,
                 'partitioning', pg_get_partkeydef(r.oid),
                 'query', case when r.relkind in ('m', 'v') then pg_get_viewdef(r.oid, true) end,
                 'options', case when r.relkind = 'v' then
                              (select string_agg(o, ', ' order by o) from unnest(c.reloptions) o where o !~ '^pg_') end,
                 'row-level security', c.relrowsecurity::text,
                 'forced row-level security', c.relforcerowsecurity::text,
                 'comment', obj_description(r.oid, 'pg_class'))
          from relations r join pg_class c using (oid)
    """,
    "column": """
        select r.relname || '.' || a.attname,
               jsonb_build_object(
                 'type', format_type(a.atttypid, a.atttypmod),
                 'not null', a.attnotnull::text,
                 'default', case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end,
                 'generated', case when a.attgenerated <> '' then pg_get_expr(d.adbin, d.adrelid) end,
                 'identity', nullif(a.attidentity, '')::text,
                 'collation', (select l.collname from pg_collation l where l.oid = a.attcollation),
                 'comment', col_description(r.oid, a.attnum))
          from relations r
          join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
          left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
    """,
    "index": """
        select r.relname || '.' || c.relname,
               jsonb_build_object(
                 'definition', case when i.indisunique then 'unique ' else '' end
                   || substr(pg_get_indexdef(i.indexrelid, 0, true), strpos(pg_get_indexdef(i.indexrelid, 0, true), ' USING ') + 1),
                 'valid', i.indisvalid::text,
                 'statistics targets', (select string_agg(a.attnum || ': ' || a.attstattarget, ', ' order by a.attnum)
                                          from pg_attribute a
                                         where a.attrelid = i.indexrelid and coalesce(a.attstattarget, -1) >= 0),
                 'comment', obj_description(c.oid, 'pg_class'))
          from relations r
          join pg_index i on i.indrelid = r.oid
          join pg_class c on c.oid = i.indexrelid
         where not exists (select from pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x'))
    """,
    "constraint": """
        select r.relname || '.' || k.conname,
               jsonb_build_object(
                 'definition', pg_get_constraintdef(k.oid, true),
                 'comment', obj_description(k.oid, 'pg_constraint'))
          from relations r
          join pg_constraint k on k.conrelid = r.oid and k.contype <> 'n'
    """,
    "trigger": """
        select r.relname || '.' || t.tgname,
               jsonb_build_object(
                 'definition', pg_get_triggerdef(t.oid, true),
                 'enabled', (t.tgenabled = 'O')::text,
                 'comment', obj_description(t.oid, 'pg_trigger'))
          from relations r
          join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
    """,
    "policy": """
        select r.relname || '.' || p.polname,
               jsonb_build_object(
                 'command', p.polcmd::text,
                 'permissive', p.polpermissive::text,
                 'roles', (select string_agg(coalesce(quote_ident(g.rolname), 'public'), ', ' order by g.rolname)
                             from unnest(p.polroles) k (oid) left join pg_roles g on g.oid = k.oid),
                 'using', pg_get_expr(p.polqual, p.polrelid, true),
                 'with check', pg_get_expr(p.polwithcheck, p.polrelid, true),
                 'comment', obj_description(p.oid, 'pg_policy'))
          from relations r
          join pg_policy p on p.polrelid = r.oid
    """,
    "type": """
        select t.typname,
               jsonb_build_object(
                 'kind', t.typtype::text,
                 'base type', case when t.typtype = 'd' then format_type(t.typbasetype, t.typtypmod) end,
                 'values', (select string_agg(e.enumlabel, ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
                 'constraints', (select string_agg(pg_get_constraintdef(k.oid, true), ', ' order by k.conname)
                                   from pg_constraint k where k.contypid = t.oid),
                 'comment', obj_description(t.oid, 'pg_type'))
          from pg_type t
          left join pg_class c on c.oid = t.typrelid
         where t.typnamespace = to_regnamespace(%(schema)s)
           -- A table makes a type, and a range type one of many ranges.
           and (t.typtype in ('d', 'e', 'r') or c.relkind = 'c')
           and not exists (select from pg_depend d where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e')
    """,
    "sequence": """
        select c.relname,
               jsonb_build_object('type', format_type(s.seqtypid, null), 'comment', obj_description(c.oid, 'pg_class'))
          from pg_sequence s
          join pg_class c on c.oid = s.seqrelid
         where c.relnamespace = to_regnamespace(%(schema)s)
           -- Those of columns go with these.
           and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                              and d.deptype in ('a', 'i', 'e'))
    """,
    "function": """
        select p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
               jsonb_build_object(
                 'arguments', pg_get_function_arguments(p.oid),
                 'result', pg_get_function_result(p.oid),
                 'body', coalesce(pg_get_function_sqlbody(p.oid), p.prosrc),
                 'language', (select l.lanname from pg_language l where l.oid = p.prolang),
                 'volatility', p.provolatile::text,
                 'strict', p.proisstrict::text,
                 'parallel safety', p.proparallel::text,
                 'security definer', p.prosecdef::text,
                 'settings', array_to_string(p.proconfig, ', '),
                 'comment', obj_description(p.oid, 'pg_proc'))
          from pg_proc p
         where p.pronamespace = to_regnamespace(%(schema)s)
           and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
    """,
}


def _facts(conn: Connection, schema: str) -> Facts:
    facts: Facts = {}
    for kind, query in _QUERIES.items():
        text = f"with relations as ({_RELATIONS}) {query}"  # both are constants of this module
        rows: list[tuple[str, dict[str, Any]]] = conn.execute(text.encode(), {"schema": schema}).fetchall()
        for name, attributes in rows:
            facts[f"{kind} {name}"] = {key: value for key, value in attributes.items() if value is not None}
    return facts
