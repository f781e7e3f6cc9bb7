"""Views that stand on a view which has to go for a moment: set aside, and made again from their files.

What belongs here: finding them, and what they and a replaced view were granted. What does not: what a view should be.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql

from b44_assets.catalog import Kind, Spec
from b44_assets.errors import DatabaseError
from b44_assets.schema.online_ddl import run
from b44_assets.session import Connection, Session, scalar, trusted

_STANDING = """
    with recursive standing (oid, depth) as (
      select to_regclass(%(name)s)::oid, 0
       union
      select r.ev_class, s.depth + 1
        from standing s
        join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid and d.classid = 'pg_rewrite'::regclass
        join pg_rewrite r on r.oid = d.objid and r.ev_class <> s.oid
       where s.depth > 0 or %(columns)s::text[] is null
          or exists (select from pg_attribute a
                      where a.attrelid = s.oid and a.attnum = d.refobjsubid and a.attname = any (%(columns)s))
    )
    select n.nspname = 'public', c.relname, c.oid::regclass::text, case c.relkind when 'm' then 'materialized view' else 'view' end
      from (select oid, max(depth) as depth from standing group by oid) s
      join pg_class c using (oid)
      join pg_namespace n on n.oid = c.relnamespace
     where s.depth > 0
     order by s.depth desc, c.relname
"""
_GRANTED = """
    select statement, part from b44.grants_of(to_regclass(%(name)s), %(name)s)
     union all
    select format('alter %%s %%I.%%I owner to %%I', case c.relkind when 'm' then 'materialized view' else 'view' end,
                  n.nspname, c.relname, pg_get_userbyid(c.relowner)), null
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
     where c.oid = to_regclass(%(name)s) and pg_get_userbyid(c.relowner) <> current_user
"""
_COLUMNS = """
    select attname from pg_attribute where attrelid = to_regclass(%(name)s) and attnum > 0 and not attisdropped
"""


@dataclass(frozen=True)
class ViewAccess:
    """Who owns a view and who may do what with it.

    Attributes:
        name: The view.
        schema: Its schema.
        statements: What gives it back to one that was made anew, each with the column that it is about.
    """

    name: str
    schema: str
    statements: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(cls, conn: Connection, name: str, *, schema: str = "public") -> ViewAccess:
        """As it is now."""
        relation = {"name": sql.Identifier(schema, name).as_string(conn)}
        return cls(name, schema, tuple(conn.execute(_GRANTED, relation).fetchall()))

    def give_back(self, conn: Connection) -> None:
        """Grants all of it again, but for columns that are gone."""
        relation = {"name": sql.Identifier(self.schema, self.name).as_string(conn)}
        columns = {row[0] for row in conn.execute(_COLUMNS, relation)}
        for statement, column in self.statements:
            if column is None or column in columns:
                conn.execute(trusted(statement))


@dataclass(frozen=True)
class StandingView:
    """A view that stands on another relation, directly or by other views.

    Attributes:
        public: Whether it is in schema public.
        name: Its name there.
        shown: Its name with the schema, quoted as the server needs it.
        kind: As SQL names it: `view` or `materialized view`.
    """

    public: bool
    name: str
    shown: str
    kind: str


def views_on(conn: Connection, relation: str, columns: Sequence[str] | None = None) -> list[StandingView]:
    """Finds the views that stand on a relation, in the order in which they can be dropped.

    Args:
        conn: Of the target.
        relation: With its schema, quoted as the server needs it.
        columns: Only those that read one of these columns, and what stands on them; by default all.
    """
    rows = conn.execute(_STANDING, {"name": relation, "columns": None if columns is None else list(columns)}).fetchall()
    return [StandingView(*row) for row in rows]


@contextmanager
def set_aside(session: Session, conn: Connection, spec: Spec) -> Generator[None]:
    """Drops the views that stand on a view, and makes them again after the block, with what they were granted.

    Args:
        session: The run.
        conn: In a transaction.
        spec: The view's file.

    Raises:
        DatabaseError: One of them is none of the folder's; names it. Nothing is dropped then.
    """
    files = {one.name: one for one in session.catalog.of(Kind.VIEW)}
    standing = views_on(conn, f"public.{spec.name}")
    if others := [one.shown for one in standing if not one.public or one.name not in files]:
        raise DatabaseError(
            f"{spec.path}:{spec.statements[0].line}: {spec.name} cannot be replaced, since view {others[-1]} stands on it:"
            f" drop {others[-1]}, migrate, and make it again"
        )
    access = [ViewAccess.of(conn, one.name) for one in standing]
    for one in standing:
        conn.execute(sql.SQL("drop {} {}").format(trusted(one.kind), sql.Identifier("public", one.name)))
    yield
    for kept in reversed(access):
        _make(conn, files, files[kept.name])
        kept.give_back(conn)


def _make(conn: Connection, files: Mapping[str, Spec], file: Spec) -> None:
    """Makes a view from its file, and first those that it has come to read and that are not there yet."""
    for name in file.depends:
        if name in files and scalar(conn, "select to_regclass(%s) is null", (f"public.{name}",)):
            _make(conn, files, files[name])
    for statement in file.statements:
        run(conn, file, statement.line, statement.text)
