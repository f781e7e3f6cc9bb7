"""The state of migration and database as one page that needs nothing else: for reading, signing and keeping.

What belongs here: what the page says, and its form. What does not: finding out anything that a check finds out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from psycopg.rows import dict_row

from b44_assets.migration.accounts import EntityAccount, accounts
from b44_assets.migration.checklists import Evidence, evidence
from b44_assets.migration.listed import BrokenRule
from b44_assets.migration.unmapped_entities import unmapped_entities
from b44_assets.migration.verdict import Records, Verdict
from b44_assets.session import Connection, Session, scalar

_LISTED = 200
"""How many conflicts, or unmapped fields, a page lists at most."""


@dataclass(frozen=True)
class Cutover:
    """What a cut-over came to.

    Attributes:
        held: Whether every record is accounted for and every blocking check passed.
        signed_by: Who signs it.
        begun: When it began (UTC).
        freeze_seconds: From then until all was verified: how long the application must not write.
        stages: Seconds by what was done.
        checks: `(asset, name, verdict, what it said)`.
        faults: What ended it early, a line each.
    """

    held: bool
    signed_by: str
    begun: datetime
    freeze_seconds: float
    stages: dict[str, float]
    checks: tuple[tuple[str, str, str, str], ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """What was measured of the server.

    Attributes:
        name: Of the measurement.
        description: What it is.
        figures: Its numbers; shares (0 to 1) have a name that ends in `_ratio`, sizes in `_bytes`, times in `_seconds`.
        checks: `(name, verdict, what it says)`.
    """

    name: str
    description: str
    figures: dict[str, float]
    checks: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Report:
    """What a page says.

    Attributes:
        at: When it was made (UTC).
        accounts: What became of every record, by entity.
        exports: What was read: entity, file, dialect, records, bytes and SHA-256.
        entities_without_table: Entities of the export that have no table: entity, file, records.
        unmapped: Fields without a column, with how many records have them, by entity.
        conflicts: Rows that a newer export could not change, the first of them.
        retained: Rows whose record the export does not have any more or that is refused, by entity and reason.
        corrections: Corrected records of the quarantine, by entity.
        broken_rules: Rules that rows of the migration break, which are kept and listed.
        listed: What is kept as it is, for a person to look at, counted by what one of it is called.
        sizes: Rows and bytes of each table.
        server: Version of the server, and name and size of the database.
        sql_digest: SHA-256 over the files of `sql/` that the database was made from.
        checks: What each check has found last: asset, name, outcome, what it said, and since when.
        measured: What was measured of the server; empty where it could not be.
        backup: The newest good backup in one line, or that there is none.
        cutover: What the cut-over came to; None for a page of the state alone.
    """

    at: datetime
    accounts: tuple[EntityAccount, ...]
    exports: tuple[dict[str, Any], ...]
    entities_without_table: tuple[dict[str, Any], ...]
    unmapped: tuple[dict[str, Any], ...]
    conflicts: tuple[dict[str, Any], ...]
    retained: tuple[dict[str, Any], ...]
    corrections: tuple[dict[str, Any], ...]
    broken_rules: tuple[BrokenRule, ...]
    listed: Mapping[str, int]
    sizes: tuple[dict[str, Any], ...]
    server: dict[str, Any]
    sql_digest: str
    checks: tuple[dict[str, Any], ...]
    measured: tuple[Measured, ...]
    backup: str
    cutover: Cutover | None

    @property
    def verdict(self) -> Verdict:
        """The whole in one line: of the cut-over, else of what each check has found last."""
        if self.cutover:
            checks = [(asset, name, outcome) for asset, name, outcome, _ in self.cutover.checks]
        else:
            checks = [(one["asset"], one["name"], one["outcome"]) for one in self.checks]
        outcomes = [outcome for *_, outcome in checks]
        return Verdict(
            records=Records.of(self.accounts, sum(one["records"] for one in self.entities_without_table)),
            passed=outcomes.count("passed"),
            warned=outcomes.count("warning"),
            failed=tuple(f"{asset} {name}" for asset, name, outcome in checks if outcome == "failed"),
            faults=self.cutover.faults if self.cutover else (),
            listed=self.listed,
        )

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What is known of each line of the checklists: by what was asked just now, else by what each check has found last."""
        now = [(name, verdict, said) for one in self.measured for name, verdict, said in one.checks]
        if self.cutover:
            now += [(name, verdict, said) for _, name, verdict, said in self.cutover.checks]
        asked = {name for name, *_ in now}
        last = [(one["name"], one["outcome"], one["said"]) for one in self.checks if one["name"] not in asked]
        return evidence([*now, *last])

    @property
    def facts(self) -> str:
        """All of it as one line of JSON, in a fixed order."""
        return json.dumps(
            {**asdict(self), "verdict": self.verdict.facts()}, ensure_ascii=False, sort_keys=True, default=str
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the facts, 64 hex digits."""
        return hashlib.sha256(self.facts.encode()).hexdigest()


def gather(
    session: Session,
    broken: tuple[BrokenRule, ...],
    listed: Mapping[str, int],
    cutover: Cutover | None = None,
    *,
    measured: tuple[Measured, ...] = (),
    backup: str = "",
) -> Report:
    """Reads what the page says from the migration tables and the server.

    Args:
        session: The run.
        broken: Rules that rows break, as `listed.broken_rules` counts them.
        listed: What is kept as it is, as `listed.listed` counts it.
        cutover: What a cut-over came to.
        measured: What was measured of the server.
        backup: The newest good backup in one line, or that there is none.

    Raises:
        DatabaseError: The target cannot be reached, or nothing was ever migrated into it.
    """
    found, without_table = accounts(session), unmapped_entities(session)
    with session.connection("report") as conn:
        return Report(
            at=datetime.now(UTC),
            accounts=found,
            exports=_rows(
                conn,
                "select entity, source_file, dialect, records, bytes, digest, exported_at from migration.exports order by 1",
            ),
            entities_without_table=tuple(
                {"entity": one.entity, "file": one.file, "records": one.records} for one in without_table
            ),
            unmapped=_rows(
                conn,
                "select entity, field, count(*) as records from migration.unmapped, jsonb_object_keys(data) field"
                " group by 1, 2 order by 1, 3 desc, 2 limit %s",
                _LISTED,
            ),
            conflicts=_rows(
                conn,
                "select entity, base44_id, kind, array_to_string(columns, ', ') as columns, accepted_at is not null as accepted"
                " from migration.conflicts order by 1, 3, 2 limit %s",
                _LISTED,
            ),
            retained=_rows(
                conn, "select entity, reason, count(*) as rows from migration.retained group by 1, 2 order by 1, 2"
            ),
            corrections=_rows(
                conn,
                "select entity, count(*) filter (where replayed_at is not null) as replayed from migration.quarantine"
                " group by 1 having count(*) filter (where replayed_at is not null) > 0 order by 1",
            ),
            broken_rules=broken,
            listed=listed,
            sizes=_rows(
                conn,
                """
                select c.relname as name,
                       coalesce((select sum(pg_total_relation_size(relid)) from pg_partition_tree(c.oid)),
                                pg_total_relation_size(c.oid))::bigint as bytes
                  from pg_class c join pg_namespace n on n.oid = c.relnamespace
                 where n.nspname = 'public' and c.relkind in ('r', 'p', 'm') and not c.relispartition
                 order by 2 desc, 1
                """,
            ),
            server={
                "version": scalar(conn, "show server_version"),
                "database": scalar(conn, "select current_database()"),
                "bytes": scalar(conn, "select pg_database_size(current_database())"),
            },
            sql_digest=hashlib.sha256(
                "".join(spec.digest for spec in sorted(session.catalog.specs, key=lambda spec: str(spec.path))).encode()
            ).hexdigest(),
            checks=_rows(
                conn,
                "select asset, check_name as name, outcome, said, checked_at from b44.check_results"
                " order by array_position('{failed,warning,passed}', outcome), 1, 2",
            ),
            measured=measured,
            backup=backup,
            cutover=cutover,
        )


def _rows(conn: Connection, query: str, *values: object) -> tuple[dict[str, Any], ...]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return tuple(cursor.execute(query.encode(), values or None).fetchall())


def render(report: Report) -> str:
    """The page, in HTML with its style and its facts within.

    Args:
        report: What it says. Whatever comes from an export is escaped.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["size"] = _size
    text = files("b44_assets.migration").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(report=report, cutover=report.cutover, figure=_figure)


def _figure(value: float, name: str) -> str:
    """A number in the unit that its name tells."""
    if name.endswith("_ratio"):
        return f"{100 * value:.1f} %"
    if name.endswith("_bytes"):
        return _size(round(value))
    if name.endswith("_seconds"):
        return f"{value:,.1f} s"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"


def _size(size: int) -> str:
    for unit, factor in (("GB", 1024**3), ("MB", 1024**2), ("kB", 1024)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
