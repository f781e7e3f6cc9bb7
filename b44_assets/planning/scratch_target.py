"""A throw-away server that stands for the target: with the app's tables, and the rows that planning reads.

What belongs here: making it, and filling it from the target by reading alone. What does not: planning.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from psycopg import sql

from b44_assets.backup.scratch import initialize, scratch, serving
from b44_assets.backup.tools import server_programs
from b44_assets.catalog import Catalog, Kind
from b44_assets.migration.readable import require_rows
from b44_assets.migration.staging import hand_staged
from b44_assets.postgres.embedded.binaries import MAJOR_VERSION
from b44_assets.schema.build import build
from b44_assets.schema.preflight import needed
from b44_assets.schema.runtime import install_runtime
from b44_assets.session import Connection, Session, columns_of, scalar, trusted

_LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
_NOT_READ = ("repairs", "replaced", "unmapped", "unmapped_entities", "unbuilt")
"""Tables of schema migration that no plan depends on."""


@contextmanager
def scratch_target(session: Session, pg_bin: Path | None) -> Generator[Session]:
    """Runs a server of the program's own version for the block, in a folder that is gone afterwards.

    Args:
        session: What the target's would be; its URL is not used.
        pg_bin: `B44_PG_BIN`, if set.

    Yields:
        The same session on the scratch server: the program's schemas, and the app's functions and empty tables, are there.

    Raises:
        BackupError: No scratch folder or server can be made.
        DatabaseError: A file of `sql/` does not run.
    """
    with scratch() as place:
        data_dir = place.folder / "data"
        programs = server_programs(MAJOR_VERSION, pg_bin, place.account)
        initialize(place, data_dir, programs, _LOCALE)
        with (
            serving(place, data_dir, programs) as server,
            replace(session, url=server.url(), read_replica=None).keeping() as made,
        ):
            _build(made)
            yield made


def _build(session: Session) -> None:
    catalog = session.catalog
    with session.connection("make roles") as conn:
        for spec in catalog.of(Kind.ROLE):
            conn.execute(sql.SQL("create role {}").format(sql.Identifier(spec.name)))
    install_runtime(session)
    wanted = needed(
        catalog, [*catalog.mappings, *(name for one in catalog.mappings.values() for name in one.spec.depends)]
    )
    for spec in catalog.of(Kind.FUNCTION, Kind.TABLE, Kind.VIEW):
        if spec.name in wanted:
            build(session, spec)


def require_readable(target: Connection, catalog: Catalog) -> None:
    """Refuses a role that would not see every row that a plan compares an export with, before any server is waited for.

    Raises:
        DatabaseError: Naming the tables, and what to grant.
    """
    require_rows(target, catalog, but=_NOT_READ)


def copy_rows(target: Connection, session: Session) -> None:
    """Copies into the scratch server what a plan compares an export with: the app's rows, and what was migrated.

    Args:
        target: In a transaction that only reads, on one snapshot.
        session: On the scratch server.
    """
    tables = [("public", spec.name) for spec in session.catalog.of(Kind.TABLE)]
    with session.connection("copy the target", idles=True) as conn:
        _add_former_columns(target, conn)
        # Rows were checked where they come from, and are to arrive in any order.
        conn.execute("set session_replication_role = replica")
        tables += [("migration", name) for name in _plain_tables(conn, "migration") if name not in _NOT_READ]
        copied = [table for table in tables if _copy(target, conn, *table)]
        for schema, name in copied:
            conn.execute(sql.SQL("analyze {}").format(sql.Identifier(schema, name)))
        _continue_identities(conn)
        for name in hand_staged(target, session.catalog):
            _make_like(target, conn, name)
            _copy(target, conn, "public", name)


def _plain_tables(conn: Connection, schema: str) -> list[str]:
    rows = conn.execute(
        "select relname from pg_class where relnamespace = to_regnamespace(%s) and relkind = 'r' order by 1", (schema,)
    )
    return [name for (name,) in rows]


def _copy(target: Connection, conn: Connection, schema: str, name: str) -> bool:
    """Copies the columns that both have; tells whether the target has the table."""
    found = columns_of(target, schema, name)
    columns = [
        column for column, generated in columns_of(conn, schema, name).items() if not generated and column in found
    ]
    if not columns:
        return False
    relation, listed = sql.Identifier(schema, name), sql.SQL(", ").join(map(sql.Identifier, columns))
    # What the table's file has put into it comes from the target as well.
    conn.execute(sql.SQL("delete from {}").format(relation))
    with (
        target.cursor() as source,
        conn.cursor() as sink,
        source.copy(sql.SQL("copy (select {} from {}) to stdout").format(listed, relation)) as rows,
        sink.copy(sql.SQL("copy {} ({}) from stdin").format(relation, listed)) as written,
    ):
        for piece in rows:
            written.write(piece)
    return True


def _add_former_columns(target: Connection, conn: Connection) -> None:
    """Adds the columns that were filled before and are in no file now: by them a row that was edited is told from others."""
    if not columns_of(target, "migration", "checksummed"):
        return
    noted: Iterable[tuple[str, list[str]]] = target.execute(
        "select entity, columns from migration.checksummed"
    ).fetchall()
    for table, filled in noted:
        there = columns_of(conn, "public", table)
        former = {name for name in filled if name not in there}
        if there and former:
            columns = [column for name, column in _typed_columns(target, conn, table) if name in former]
            for column in columns:
                conn.execute(sql.SQL("alter table {} add column {}").format(sql.Identifier("public", table), column))


def _continue_identities(conn: Connection) -> None:
    """Numbers that are given go on after those that were copied."""
    rows: Iterable[tuple[str, str]] = conn.execute(
        "select c.relname, a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " where c.relnamespace = to_regnamespace('migration') and c.relkind = 'r' and a.attidentity <> ''"
    ).fetchall()
    for table, column in rows:
        conn.execute(
            sql.SQL("select setval(pg_get_serial_sequence({}, {}), max({})) from {} having max({}) is not null").format(
                sql.Literal(f"migration.{table}"),
                sql.Literal(column),
                sql.Identifier(column),
                sql.Identifier("migration", table),
                sql.Identifier(column),
            )
        )


def _make_like(target: Connection, conn: Connection, name: str) -> None:
    """Makes an empty table with the columns of one of the target's."""
    columns = [column for _, column in _typed_columns(target, conn, name)]
    conn.execute(sql.SQL("create table {} ({})").format(sql.Identifier("public", name), sql.SQL(", ").join(columns)))


def _typed_columns(target: Connection, conn: Connection, table: str) -> list[tuple[str, sql.Composable]]:
    """The columns of one of the target's tables, by name; of a type that the scratch server lacks, as text."""
    columns: Iterable[tuple[str, str]] = target.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
        (f"public.{sql.Identifier(table).as_string(target)}",),
    ).fetchall()
    return [
        (
            column,
            sql.SQL("{} {}").format(
                sql.Identifier(column),
                trusted(kind if scalar(conn, "select to_regtype(%s) is not null", (kind,)) else "text"),
            ),
        )
        for column, kind in columns
    ]
