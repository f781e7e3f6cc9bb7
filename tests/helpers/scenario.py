"""A small migration that passes every failpoint, in phases, and all that it leaves.

Two exports, the second with updates, moved months, exchanged addresses, vanished, refused and edited records; then the
second one taken back; and some of the schema built in live use. Every phase can be run again at any point.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from b44_assets.catalog import Catalog, Kind
from b44_assets.config.quantities import Pace
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.migration.rollback import roll_back_run
from b44_assets.migration.unmapped_entities import keep_unmapped
from b44_assets.schema.build import build
from b44_assets.schema.indexes import apply_indexes
from b44_assets.schema.views import refresh
from b44_assets.session import Connection, Session
from tests.helpers.records import Record, object_id, post, user

FIRST, SECOND = "first", "second"
OLD, NEW = "2026-03-01", "2026-03-02"
RUN = "run-{}"


# -- the exports -------------------------------------------------------------------------------------------------------


def _person(number: int, updated: str = OLD, **fields: object) -> Record:
    return user(number, created_date="2026-01-01", updated_date=updated, **fields)


def _article(number: int, month: int = 2, updated: str = OLD, **fields: object) -> Record:
    return post(number, created_date=f"2026-{month:02}-{number:02}", updated_date=updated, **fields)


def _event(number: int, day: int, updated: str = OLD) -> Record:
    return {
        "id": object_id(number),
        "user_id": object_id(1),
        "title": "E",
        "event_date": f"2026-01-{day:02}T10:00:00",
        "created_date": "2026-01-01",
        "updated_date": updated,
    }


def _of_user(number: int, **fields: object) -> Record:
    return {"id": object_id(number), "user_id": object_id(number), "created_date": "2026-01-01", **fields}


EXPORTS: Mapping[str, Mapping[str, list[Record]]] = {
    FIRST: {
        "User": [
            _person(1, created_by_id=object_id(2)),
            _person(2, username="anna"),
            _person(3, username="anna", email="x@example.com"),
            _person(4, email="y@example.com"),
            _person(5, email="nonsense"),
            _person(6),
            _person(7, role="emperor"),
        ],
        "Category": [{"id": object_id(1), "name": "News"}, {"id": object_id(2), "name": "News"}],
        "Post": [
            _article(1, mood="glad", content="<b onclick=x>Long enough</b>"),
            _article(2),
            _article(3, title=None),
            _article(4, 3),
            _article(5, 3, title="Title 4"),
            _article(6, 3, user_id="nobody"),
            _article(7, 4, view_count=7),
            _article(8, 4),
            {"id": "undated", "title": "No date", "content": "Long enough.", "user_id": object_id(1)},
        ],
        "Event": [_event(1, 5), _event(2, 6), _event(3, 6)],
        "UserPreference": [_of_user(1, preferences='{"a": 1}'), _of_user(2, preferences="{")],
        "UserSession": [_of_user(1, session_data='{"b": 2}', expires_at="2026-05-01")],
        "AuditLog": [
            _of_user(1, action="login", table_name="posts", record_id="r", timestamp="2025-12-31"),
            _of_user(9, action="x", table_name="posts", record_id="r", timestamp="2026-01-01"),
        ],
        "Comment": [{"id": object_id(1), "text": "first"}],
    },
    SECOND: {
        "User": [
            _person(1, NEW, full_name="One", created_by_id=object_id(8)),
            _person(2, username="anna"),
            _person(3, NEW, username="anna", email="y@example.com"),
            _person(4, NEW, email="x@example.com"),
            _person(5, email="nonsense"),
            _person(7, NEW, role="editor"),
            _person(8, created_by_id=object_id(1)),
            _person(9, email=None),
        ],
        "Category": [{"id": object_id(1), "name": "News"}, {"id": object_id(3), "name": "Sport"}],
        "Post": [
            _article(1, updated=NEW, mood="sad", content="<i onclick=x>Long enough</i>"),
            _article(2, updated=NEW, title="Changed there"),
            _article(3, title=None),
            _article(4, 5, NEW, title="Moved"),
            _article(5, 3, title="Title 4"),
            _article(6, 3, user_id="nobody"),
            _article(7, 4, view_count=7),
            _article(9, 4),
            _article(10, 5, category_id=object_id(3), tags="a, b"),
            _article(11, 5, view_count=7),
            _article(12, 5),
            {"id": "undated", "title": "No date", "content": "Long enough.", "user_id": object_id(1)},
        ],
        "Event": [_event(1, 6, NEW), _event(2, 5, NEW), _event(4, 7)],
        "UserPreference": [_of_user(1, preferences='{"a": 3}', updated_date=NEW), _of_user(8)],
        "UserSession": [_of_user(1, session_data='{"b": 2}', expires_at="2026-05-01"), _of_user(8)],
        "AuditLog": [
            _of_user(1, action="login", table_name="posts", record_id="r", timestamp="2025-12-31"),
            _of_user(9, action="x", table_name="posts", record_id="r", timestamp="2026-01-01"),
            _of_user(4, action="logout", table_name="posts", record_id="r", timestamp="2026-02-01"),
        ],
        "Comment": [{"id": object_id(1), "text": "first"}, {"id": object_id(2), "text": "second"}],
    },
}

# What befalls the database between the two exports.
BETWEEN = (
    f"update posts set title = 'Edited here' where base44_object_id(id) = '{object_id(2)}'",
    "update migration.quarantine set record = record || '{\"title\": \"Found\"}' where reasons = array['missing_title']",
    'update migration.quarantine set record = record || \'{"email": "right@example.com"}\''
    " where reasons = array['invalid_email']",
    f"delete from audit_logs where base44_object_id(id) = '{object_id(9)}'",
)


def write_exports(folder: Path) -> None:
    """Writes both, each into a folder of its name."""
    for number, (name, records) in enumerate(EXPORTS.items()):
        (folder / name).mkdir(parents=True)
        moment = datetime(2026, 6, 1 + number, tzinfo=UTC).timestamp()
        for entity, listed in records.items():
            path = folder / name / f"{entity}.jsonl"
            path.write_text("".join(json.dumps(record) + "\n" for record in listed))
            os.utime(path, (moment, moment))


# -- the work ----------------------------------------------------------------------------------------------------------


def prepare(session: Session) -> None:
    """Makes the migration tables, functions and tables. The server refuses one post that the mapping finds sound."""
    for spec in session.catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE):
        build(session, spec)
    with session.connection("prepare") as conn:
        conn.execute("alter table posts add constraint no_seven check (view_count <> 7)")


def session_of(url: str, catalog: Catalog, **pace: Any) -> Session:
    """A run in small batches that does not wait before it tries again."""
    pace = {"batch_size": 2, "streams": 1, **pace}
    return Session(url=url, catalog=catalog, pace=Pace(**pace), sleep=lambda seconds: None)


def _migrate(session: Session, export: Path) -> None:
    with replace(session, run_id=RUN.format(export.name)).keeping() as run:
        for mapping in run.catalog.mappings.values():
            stage_export(run, mapping, export)
            load_table(run, mapping)
        keep_unmapped(run, export)


def _roll_back(session: Session, folder: Path) -> None:
    with session.keeping() as run:
        for mapping in run.catalog.mappings.values():
            stage_export(run, mapping, folder / SECOND)
        roll_back_run(run, RUN.format(SECOND))


_SCHEMA = ("users_constraints", "posts_constraints", "user_post_stats")


def _build(session: Session, folder: Path) -> None:
    specs = {spec.name: spec for spec in session.catalog.of(Kind.CONSTRAINT, Kind.INDEX, Kind.VIEW)}
    apply_indexes(session, specs["posts_foreign_key_indexes"], online=True)
    for name in _SCHEMA:
        build(session, specs[name])
    refresh(session, specs["user_post_stats"])


@dataclass(frozen=True)
class Phase:
    """A part of the work.

    Attributes:
        before: The phase whose end it begins at; None for an empty database.
        between: Statements that befall the database before it.
        work: Does it, given the folder of both exports.
    """

    before: str | None
    between: tuple[str, ...]
    work: Callable[[Session, Path], None]


PHASES: Mapping[str, Phase] = {
    FIRST: Phase(None, (), lambda session, folder: _migrate(session, folder / FIRST)),
    SECOND: Phase(FIRST, BETWEEN, lambda session, folder: _migrate(session, folder / SECOND)),
    "rollback": Phase(SECOND, (), _roll_back),
    "schema": Phase(SECOND, (), _build),
}

PROVOKED = frozenset({"batch: before retry", "batch: before failure is noted", "batch: after failure is noted"})
"""Failpoints that are passed only where a batch fails."""


def phase_of(failpoint: str) -> str:
    """The phase in which a failpoint is passed, the one with most before it."""
    topic = failpoint.partition(":")[0]
    return {"rollback": "rollback", "schema": "schema", "indexes": "schema", "view": "schema"}.get(topic, SECOND)


# -- what it leaves ----------------------------------------------------------------------------------------------------

# What differs from run to run: numbers that count attempts, and times of the work.
_OF_THE_RUN = {"generation", "batch_number", "run_id", "staged_at", "quarantined_at", "noted_at", "corrected_at"}
_BOOKS: Mapping[str, Iterable[str]] = {
    "exports": (),
    "refused": (),
    "versions": (),
    "undated": (),
    "migrated": ("updated_batch",),
    "quarantine": ("id", "replayed_at"),
    "corrections": ("id",),
    "repairs": (),
    "unmapped": (),
    "conflicts": ("accepted_at",),
    "retained": (),
    "replaced": ("migrated_before", "repairs_before"),
    "parts": ("first_position", "last_position"),
    "accounting": (),
}
# Of these it counts whether they are there.
_WHETHER = {"migrated": "updated_batch", "quarantine": "replayed_at", "conflicts": "accepted_at"}

State = dict[str, list[str]]


def state(conn: Connection) -> State:
    """Every row of the app's tables, of the staged ones and of the migration tables, as text, less what differs from run to run."""
    conn.execute("set timezone = 'UTC'")
    relations = conn.execute(
        """
        select n.nspname, c.relname, array_agg(a.attname order by a.attnum)
          from pg_class c
          join pg_namespace n on n.oid = c.relnamespace
          join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where (n.nspname in ('public', 'base44') and c.relkind in ('r', 'p', 'm') and not c.relispartition
                or n.nspname = 'migration' and c.relname = any (%s)) and c.relname <> 'schema_digests'
         group by c.oid, n.nspname, c.relname
        """,
        (list(_BOOKS),),
    ).fetchall()
    found: State = {}
    for schema, name, columns in relations:
        book = schema == "migration"
        left_out = _OF_THE_RUN | set(_BOOKS[name]) if book else set[str]()
        kept: list[sql.Composable] = [sql.Identifier(column) for column in columns if column not in left_out]
        if book and name in _WHETHER:
            kept.append(sql.SQL("{} is not null").format(sql.Identifier(_WHETHER[name])))
        query = sql.SQL("select row({})::text from {} order by 1").format(
            sql.SQL(", ").join(kept), sql.Identifier(schema, name)
        )
        found[f"{schema}.{name}"] = [row[0] for row in conn.execute(query).fetchall()]
    found["rows moved"] = _texts(
        conn,
        "select entity_type, rolled_back_at is not null, sum(records_processed), sum(records_kept)"
        " from migration.migration_log where status = 'completed' and run_id is not null group by 1, 2",
    )
    found["rows where they stand"] = _texts(conn, "select tableoid::regclass, id from posts")
    found["constraints"] = _texts(
        conn,
        "select conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid) from pg_constraint"
        " where connamespace = 'public'::regnamespace",
    )
    found["indexes"] = _texts(
        conn,
        "select indrelid::regclass, indexrelid::regclass, indisvalid, pg_get_indexdef(indexrelid) from pg_index i"
        " join pg_class c on c.oid = indrelid where c.relnamespace = 'public'::regnamespace",
    )
    return found


def _texts(conn: Connection, query: str) -> list[str]:
    return sorted(str(row) for row in conn.execute(query.encode()).fetchall())


def state_at(url: str) -> State:
    """As `state`, on a connection of its own."""
    with psycopg.connect(url, autocommit=True) as conn:
        return state(conn)


def differences(found: State, expected: State) -> dict[str, tuple[list[str], list[str]]]:
    """What one has and the other has not, by relation."""
    told: dict[str, tuple[list[str], list[str]]] = {}
    for name in sorted(found.keys() | expected.keys()):
        mine, theirs = found.get(name, ["absent"]), expected.get(name, ["absent"])
        if mine != theirs:
            told[name] = ([row for row in mine if row not in theirs], [row for row in theirs if row not in mine])
    return told
