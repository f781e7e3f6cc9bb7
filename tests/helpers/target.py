"""A database with `sql/` applied, small exports to fill it from, and what came of them."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from b44_assets.catalog import Catalog, Kind
from b44_assets.config.quantities import Pace
from b44_assets.migration.load import Load
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.migration.staging import StagedExport
from b44_assets.postgres.connect import connect
from b44_assets.schema.apply import apply
from b44_assets.session import Connection, Session
from tests.helpers.databases import create_database, database_url, template_once
from tests.helpers.records import Record
from tests.helpers.sessions import keeping

SYSTEM_USER = "00000000-0000-8000-8000-000000000b44"
# When the files of a template were written, and those of its copies.
_EXPORTED = datetime(2026, 6, 1, tzinfo=UTC)
Row = dict[str, Any]
# What a test has made goes, and what sql/ has made is emptied: a fiftieth of the time that a new database takes.
_RESET = """
do $$
declare
  item record;
begin
  for item in select format('%I.%I', n.nspname, c.relname) as name, c.relkind as kind
                from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where n.nspname = 'base44' and c.relkind = 'r'
                  or n.nspname = 'migration' and (c.relkind = 'v' and c.relname like '%\\_source'
                                                  or c.relkind = 'r' and c.relname like '%\\_plan')
                  or n.nspname = 'public' and c.relkind = 'r' and c.relname like 'base44\\_%'
                  or c.relispartition and c.relname ~ '_\\d{4}(_\\d\\d)?$' loop
    execute format('drop %s if exists %s cascade', case item.kind when 'v' then 'view' else 'table' end, item.name);
  end loop;
  for item in select format('%I.%I', n.nspname, c.relname) as name
                from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where n.nspname in ('public', 'migration') and c.relkind in ('r', 'p') and not c.relispartition loop
    execute format('delete from %s', item.name);
  end loop;
end
$$
"""


@dataclass(frozen=True)
class Outcome:
    """What became of the records of one entity.

    Attributes:
        rows: Migrated rows by Base44 id, as columns.
        numbers: Record number of the migrated records, by Base44 id.
        reasons: Reasons by record number, in the order of the mapping, of the quarantined records.
        records: Quarantined records as kept, by record number.
        repairs: `(column_name, rule, original, replacement)` by Base44 id, sorted.
        unmapped: Data by Base44 id.
        account: The line of `migration.accounting`, by column.
    """

    rows: dict[str, Row]
    numbers: dict[str, int]
    reasons: dict[int, list[str]]
    records: dict[int, dict[str, str | None]]
    repairs: dict[str, list[tuple[str, str, str | None, str | None]]]
    unmapped: dict[str, dict[str, str]]
    account: Row


class Target:
    """A database with `sql/` applied, empty but for the system user, and a folder for exports.

    No dataclass, for Hypothesis would print all of the session with every failed example.

    Attributes:
        session: A run on it.
        export: The folder, empty at first.
        conn: A connection for looking into it.
    """

    def __init__(self, session: Session, export: Path, conn: Connection) -> None:
        self.session = session
        self.export = export
        self.conn = conn

    def having(self, **changes: Any) -> Target:
        """The same database, worked on by another run, such as one with another batch size."""
        pace = {name: changes.pop(name) for name in [f.name for f in fields(Pace)] if name in changes}
        return Target(replace(self.session, pace=replace(self.session.pace, **pace), **changes), self.export, self.conn)

    def reset(self) -> None:
        """Makes database and folder as they were at first."""
        users = self.session.catalog.table("users").statements[-1]
        with self.conn.transaction():
            self.conn.execute(sql.SQL(_RESET))
            self.conn.execute(sql.SQL(cast(LiteralString, users.text)))
        for path in self.export.iterdir():
            path.unlink()

    def write(self, records: Mapping[str, Iterable[Record]], *, exported_at: datetime | None = None) -> None:
        """Writes one JSONL file for each entity, in place of one that is there."""
        for entity, listed in records.items():
            path = self.export / f"{entity}.jsonl"
            path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in listed), "utf-8")
            if exported_at is not None:
                os.utime(path, (exported_at.timestamp(), exported_at.timestamp()))

    def stage(self, table: str, directory: Path | None = None) -> StagedExport:
        """Stages the export of one table from the folder, or from another one."""
        return stage_export(self.session, self.session.catalog.mappings[table], directory or self.export)

    def load(self, table: str, **options: Any) -> Load:
        """Plans and loads one table."""
        return load_table(self.session, self.session.catalog.mappings[table], **options)

    def migrate(
        self, records: Mapping[str, Iterable[Record]], *, exported_at: datetime | None = None
    ) -> dict[str, Load]:
        """Writes, stages and loads some entities, in the order of the catalogue. Returns the loads by table."""
        self.write(records, exported_at=exported_at)
        done: dict[str, Load] = {}
        for table, mapping in self.session.catalog.mappings.items():
            if mapping.entity in records:
                self.stage(table)
                done[table] = self.load(table)
        return done

    def all(self, query: str | sql.SQL | sql.Composed, *parameters: object) -> list[tuple[Any, ...]]:
        """What a query returns."""
        text = query.encode() if isinstance(query, str) else query
        return self.conn.execute(text, parameters or None).fetchall()

    def one(self, query: str | sql.SQL | sql.Composed, *parameters: object) -> Any:
        """The first column of the only row."""
        (row,) = self.all(query, *parameters)
        return row[0]

    def run(self, statement: str | sql.SQL | sql.Composed, *parameters: object) -> None:
        """Runs a statement that returns nothing."""
        text = statement.encode() if isinstance(statement, str) else statement
        self.conn.execute(text, parameters or None)

    def table(self, name: str, *, schema: str = "public") -> list[Row]:
        """The rows of a table by column, the system user left out."""
        cursor = self.conn.execute(sql.SQL("select * from {}").format(sql.Identifier(schema, name)))
        columns = [column.name for column in cursor.description or ()]
        found = [dict(zip(columns, _as_text(values), strict=True)) for values in cursor.fetchall()]
        return [row for row in found if row.get("id") != SYSTEM_USER]

    def outcome(self, table: str) -> Outcome:
        """What became of the records of one table's entity."""
        key = self.session.catalog.mappings[table].key
        ids = self.all("select id::text, base44_id, record_number from migration.migrated where entity = %s", table)
        rows = {row[key]: row for row in self.table(table)}
        quarantined = self.all(
            "select record_number, reasons, record from migration.quarantine where entity = %s", table
        )
        repairs: dict[str, list[tuple[str, str, str | None, str | None]]] = {}
        for base44_id, *repair in self.all(
            "select base44_id, column_name, rule, original, replacement from migration.repairs where entity = %s"
            " order by column_name",
            table,
        ):
            repairs.setdefault(base44_id, []).append(cast(Any, tuple(repair)))
        (account,) = [row for row in self.table("accounting", schema="migration") if row["entity"] == table]
        return Outcome(
            rows={base44_id: rows[row_id] for row_id, base44_id, _ in ids},
            numbers={base44_id: number for _, base44_id, number in ids},
            reasons={number: reasons for number, reasons, _ in quarantined},
            records={number: record for number, _, record in quarantined},
            repairs=repairs,
            unmapped=dict(self.all("select base44_id, data from migration.unmapped where entity = %s", table)),
            account={name: int(value) for name, value in account.items() if name != "entity"},
        )

    def state(self) -> dict[str, list[str]]:
        """All that a migration leaves in tables and the ledger, less what differs from run to run."""
        found: dict[str, list[str]] = {}
        for table in self.session.catalog.mappings:
            found[table] = sorted(str(row) for row in self.table(table))
        found["post_slugs"] = sorted(str(row) for row in self.table("post_slugs"))
        for book, left_out in _OF_THE_RUN.items():
            rows = self.table(book, schema="migration")
            found[book] = sorted(str({k: v for k, v in row.items() if k not in left_out}) for row in rows)
        return found


_OF_THE_RUN = {
    "migrated": {"generation", "batch_number"},
    "quarantine": {"id", "generation", "quarantined_at"},
    "repairs": {"batch_number"},
    "unmapped": {"batch_number"},
    "accounting": set[str](),
}


def _as_text(values: Iterable[Any]) -> list[Any]:
    return [str(value) if isinstance(value, uuid.UUID) else value for value in values]


@contextmanager
def new_database(server_url: str, template: str = "template0", options: LiteralString = "") -> Generator[str]:
    """A database that is there for the block; its URL."""
    name = f"engine_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        create_database(conn, name, template, options)
        try:
            yield database_url(server_url, name)
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _session_on(url: str, catalog: Catalog) -> Session:
    # One stream unless a test asks for more: what takes turns is easier to tell apart.
    return Session(url=url, catalog=catalog, pace=Pace(streams=1), sleep=lambda seconds: None)


def _apply_all(url: str, catalog: Catalog) -> None:
    with keeping(_session_on(url, catalog)) as session:
        for spec in catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE):
            apply(session, spec)


@contextmanager
def _target(url: str, catalog: Catalog, export: Path) -> Generator[Target]:
    with (
        keeping(_session_on(url, catalog)) as session,
        connect(url, application_name="test", autocommit=True) as conn,
    ):
        yield Target(session, export, conn)


@contextmanager
def new_target(server_url: str, catalog: Catalog, export: Path, options: LiteralString = "") -> Generator[Target]:
    """A database of its own with the migration tables, and functions and tables of `sql/`, there for the block."""
    with new_database(server_url, options=options) as url:
        _apply_all(url, catalog)
        with _target(url, catalog, export) as target:
            yield target


@contextmanager
def copied_target(
    server_url: str,
    catalog: Catalog,
    export: Path,
    records: Mapping[str, Iterable[Record]] | None = None,
    name: str = "",
) -> Generator[Target]:
    """As `new_target`, with the project's own `sql/`, but a copy of what the first of all workers has made.

    Args:
        server_url: The server.
        catalog: The project's own `sql/`.
        export: The folder of its exports.
        records: What has been migrated into it, by entity.
        name: Of the database that holds those records, which are always the same.
    """
    applied, migrated = "engine_applied", f"engine_migrated_{name}"

    def migrate(url: str) -> None:
        with _target(url, catalog, export) as target:
            target.migrate(records or {}, exported_at=_EXPORTED)

    template = template_once(server_url, applied, lambda url: _apply_all(url, catalog))
    if records is not None:
        template = template_once(server_url, migrated, migrate, of=applied)
    with new_database(server_url, template) as url, _target(url, catalog, export) as target:
        target.write(records or {}, exported_at=_EXPORTED)
        yield target
