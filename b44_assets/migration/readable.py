"""Whether a role sees all that is asked of it: without a right, the data would seem to be at fault."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import errors

from b44_assets.catalog import Catalog, Kind
from b44_assets.errors import DatabaseError
from b44_assets.postgres.error_classes import READ_ONLY
from b44_assets.session import Connection, Session, scalar
from b44_assets.wording import some_of

_OWN = ("b44", "migration")
_STAGED = "base44"
_PROGRESS = ("accounting", "migration_log", "progress", "quarantined_by_reason", "unmapped_entities")
"""What `b44_monitor` may read, too."""
_READER = "pg_read_all_data"
_NAMED = 5


def require_progress(session: Session) -> None:
    """Refuses a role that may not read how far the migration is.

    Raises:
        DatabaseError: Naming what it may not read, and what to grant; or the target cannot be reached.
    """
    with session.connection("look what may be read") as conn:
        monitors = scalar(conn, "select to_regrole('b44_monitor') is not null")
        lacks = _lacks(conn, only=_PROGRESS)
        lacks.refuse(f"GRANT {'b44_monitor' if monitors else _READER} TO {lacks.user}")


def require_own(session: Session) -> None:
    """Refuses a role that may not read the migration's own tables, the quarantined records with them.

    Raises:
        DatabaseError: As of `require_progress`.
    """
    with session.connection("look what may be read") as conn:
        lacks = _lacks(conn)
        lacks.refuse(*lacks.grants)


def require_rows(conn: Connection, catalog: Catalog, *, but: Collection[str]) -> None:
    """Refuses a role that would not see every row of the app's tables and of the migration's.

    Args:
        conn: Of the role.
        catalog: With the app's tables.
        but: Tables of the migration that are not read.

    Raises:
        DatabaseError: As of `require_progress`.
    """
    lacks = _lacks(conn, tables=[spec.name for spec in catalog.of(Kind.TABLE)], but=but)
    lacks.refuse(*lacks.grants)


def require_checks(session: Session) -> None:
    """Refuses a role that would not see every row that checks compare, or may not compare as they do.

    Raises:
        DatabaseError: As of `require_progress`.
    """
    with session.connection("look what may be read") as conn:
        if scalar(conn, "select pg_is_in_recovery()"):
            raise DatabaseError(
                f"checks compare by functions that write: {READ_ONLY}; B44_READ_URL names a standby to read from"
            )
        tables = [spec.name for spec in session.catalog.of(Kind.TABLE, Kind.VIEW)]
        lacks = _lacks(conn, schemas=(*_OWN, _STAGED), tables=tables, checks=True)
        # They call functions that are for whoever migrates, and make what the files say in a schema that is rolled back.
        as_owner = f"run it as {lacks.owner}, who owns the tables (the user of the URL)"
        if not lacks.owned_by_superuser:
            as_owner += f", or GRANT {lacks.owner} TO {lacks.user}; ALTER ROLE {lacks.user} SET role = {lacks.owner}"
        lacks.refuse(as_owner)


@contextmanager
def remedied(session: Session, ask: Callable[[Session], None]) -> Generator[None]:
    """Says of what a role may not do in the block which right it lacks; that is looked for only then.

    Args:
        session: Of the role.
        ask: What refuses it.

    Raises:
        DatabaseError: As of `require_progress`, or as it was raised.
    """
    try:
        yield
    except DatabaseError as error:
        if isinstance(error.__cause__, errors.InsufficientPrivilege):
            ask(session)
        raise


@dataclass(frozen=True)
class _Lacks:
    user: str
    denied: list[str] | None
    hidden: list[str] | None
    closed: list[str] | None
    database: str | None
    owner: str | None
    owned_by_superuser: bool | None

    @property
    def grants(self) -> list[str]:
        reads = [f"GRANT {_READER} TO {self.user}"] if self.denied else []
        return [*reads, *([f"ALTER ROLE {self.user} BYPASSRLS"] if self.hidden else [])]

    def refuse(self, *remedies: str) -> None:
        said: list[str] = []
        if self.denied:
            said.append(f"may not read {some_of(self.denied, _NAMED)}")
        if self.hidden:
            said.append(f"would not see rows of {some_of(self.hidden, _NAMED)} that row security hides")
        if self.closed and not said:
            said.append(f"may not call {some_of(self.closed, _NAMED)}")
        if self.database and not said:
            said.append(f"may make no schema in database {self.database}")
        if said:
            raise DatabaseError(f"user {self.user} {', and '.join(said)}: {'; '.join(remedies)}")


def _lacks(
    conn: Connection,
    *,
    schemas: Collection[str] = _OWN,
    tables: Collection[str] = (),
    but: Collection[str] = (),
    only: Collection[str] = (),
    checks: bool = False,
) -> _Lacks:
    """What a role lacks to read all of some schemas, and some tables and views of the app."""
    row = conn.execute(
        """
        with wanted as (
          select c.oid, n.nspname, c.relowner,
                 case n.nspname when 'public' then '' else quote_ident(n.nspname) || '.' end || quote_ident(c.relname) as name
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where n.nspname = 'public' and c.relname = any (%(tables)s) and c.relkind in ('r', 'p', 'v', 'm')
              or n.nspname = any (%(schemas)s) and c.relname <> all (%(but)s)
                 and case when %(some)s then c.relname = any (%(only)s) else c.relkind in ('r', 'p') end
                 -- Of a load that is under way.
                 and not (n.nspname = 'migration' and c.relname ~ '_plan$')
        )
        select quote_ident(current_user),
               array_agg(name order by nspname = 'public' desc, name)
                 filter (where not has_schema_privilege(nspname, 'USAGE') or not has_table_privilege(w.oid, 'SELECT')),
               array_agg(name order by nspname = 'public' desc, name) filter (where row_security_active(w.oid)),
               (select array_agg(quote_ident(n.nspname) || '.' || quote_ident(p.proname) order by n.nspname desc, p.proname)
                  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
                 where %(checks)s and n.nspname = any (%(schemas)s) and p.provolatile <> 'v'
                   and not has_function_privilege(p.oid, 'EXECUTE')),
               case when %(checks)s and not has_database_privilege(current_database(), 'CREATE')
                    then quote_ident(current_database()) end,
               quote_ident(r.rolname), r.rolsuper
          from wanted w left join pg_roles r on r.oid = (select relowner from wanted order by nspname = 'migration' desc limit 1)
         group by r.rolname, r.rolsuper
        """,
        {
            "schemas": list(schemas),
            "tables": list(tables),
            "but": list(but),
            "some": bool(only),
            "only": list(only),
            "checks": checks,
        },
    ).fetchone()
    return _Lacks(*row) if row is not None else _Lacks("", None, None, None, None, None, None)
