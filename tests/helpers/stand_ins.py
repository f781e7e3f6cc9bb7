"""What stands in for the work of commands where only what they print is looked at; what is printed of records is the database's."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from b44_assets.backup.catalogue import Listing
from b44_assets.backup.drill import Drill
from b44_assets.backup.model import Backup, BackupKind, SourceState, StoredFile, TableState, Verification
from b44_assets.backup.restoring import Recovered, Restored
from b44_assets.backup.service import BackedUp
from b44_assets.cli.progress import Listener
from b44_assets.errors import B44Error
from b44_assets.migration.accounts import accounts
from b44_assets.migration.rollback import RolledBack, RolledBackEntity
from b44_assets.migration.verdict import Records
from b44_assets.planning import MigrationPlan, PlannedEntity, PlannedTable
from b44_assets.runs.outcome import CheckOutcome, Outcome, accounts_by_table, check_lines, unmapped_entities_of
from b44_assets.schema.drift import SchemaChanges
from b44_assets.session import Session

NOW = datetime.now(UTC)
CHECKS = (
    *(CheckOutcome("posts", f"check_{number}", "passed", "") for number in range(1, 57)),
    CheckOutcome("posts", "publish_permissions", "warning", "79 violations (id 65f2565a-b8c4-808d-8af3-b90b7b000b44)"),
)
BACKUPS = tuple(
    Backup(
        id=f"{NOW - timedelta(hours=hours):%Y%m%dT%H%M%SZ}-{kind}",
        kind=kind,
        database="app",
        system="7",
        server_version=180006,
        began_at=NOW - timedelta(hours=hours),
        ended_at=NOW - timedelta(hours=hours),
        files=(StoredFile("dump", 446_668, "0", 2_000_000, "0"),),
        state=SourceState(NOW, None, {}, {"migration.batches": TableState(2_974, "1")}, {}),
        parent=f"{NOW - timedelta(hours=5):%Y%m%dT%H%M%SZ}-base" if kind is BackupKind.INCREMENTAL else None,
        verification=Verification(NOW, 1.9),
    )
    for hours, kind in ((5, BackupKind.BASE), (4, BackupKind.INCREMENTAL), (2, BackupKind.LOGICAL))
)


def _run_job(
    _job: str, _settings: object, session: Session, *, listener: Listener, **_: Any
) -> tuple[Outcome, list[B44Error]]:
    found, unmapped = accounts(session), unmapped_entities_of(session)
    for line in check_lines(CHECKS):
        listener.say(line)
    return Outcome(
        entities=accounts_by_table(found),
        seconds=3.4,
        unmapped=unmapped,
        checks=CHECKS,
        stages={"reading": 0.4, "loading": 0.6, "schema": 1.0, "checking": 0.8},
        records=Records.of(found),
        listed={"open table": 2},
    ), []


def _plan(*_: object, **__: object) -> MigrationPlan:
    tables = ("users", "user_preferences", "posts")
    return MigrationPlan(
        target="the target",
        migrated_before=True,
        entities=(
            *(
                PlannedEntity(table.title(), table, f"{table}_export.csv", "2026-06", 123_456, {"guard quotes removed": 5})
                for table in tables
            ),
            PlannedEntity("Comment", None, "Comment_export.csv", "2026-06", 7, unknown_fields=("bio", "_app_role")),
        ),
        tables=tuple(
            PlannedTable(table, 123_456, 1_234, 12, 122_000, 10, 200, 0, {"missing_id": 200}, {"edited": 3})
            for table in tables
        ),
        schema=SchemaChanges(
            ("index public.posts_by_author", "table public.comments"), ("column public.users.email: text, not citext",), program="kept"
        ),
        warnings=("Post_export.csv ends within its last record, as half a download does: export that entity again",),
    )  # fmt: skip


def _restored(_: object, folder: Path, **__: object) -> Restored:
    return Restored(folder.absolute(), folder, 180006, Recovered(BACKUPS[0].id, NOW, "0/3000148", 2))


def _write_report(_settings: object, target: Path, *_: object, **__: object) -> None:
    target.touch()


def _find(_: object, text: str) -> Backup:
    return next(one for one in BACKUPS if text.partition("/")[0] in one.id)


def _nothing(*_: object, **__: object) -> Sequence[Any]:
    return ()


_INSTEAD: dict[str, Any] = {
    "b44_assets.cli.migration.run_job": _run_job,
    "b44_assets.cli.status.run_job": _run_job,
    "b44_assets.cli.migration.write_report": _write_report,
    "b44_assets.cli.status._measured": _nothing,
    "b44_assets.planning.plan_migration": _plan,
    "b44_assets.migration.rollback.roll_back_month": lambda *_: RolledBack(
        (RolledBackEntity("posts", 1_600, 12, 3, 4), RolledBackEntity("user_preferences", 7, 0, 0, 0)), ()
    ),
    "b44_assets.backup.catalogue.Catalogue.listing": lambda _: Listing(BACKUPS, (), ()),
    "b44_assets.backup.catalogue.Catalogue.find": _find,
    "b44_assets.backup.service.back_up": lambda *_, **__: BackedUp(BACKUPS[-1]),
    "b44_assets.backup.service.rehearse": lambda *_: Drill(NOW, BACKUPS[0].id, 1.2, 3.4, 0, NOW, "0/1", 1, 1),
    "b44_assets.backup.service.archive_schemas": lambda *_: BackedUp(BACKUPS[-1]),
    "b44_assets.backup.restoring.restore_logical": _nothing,
    "b44_assets.backup.recovery.restore_physical": _restored,
    "b44_assets.migration.finish.drop_migration_tables": _nothing,
    "b44_assets.runs.instance.tell_dagster": _nothing,
    "b44_assets.cli.backups.tell_dagster": _nothing,
}


def stand_in() -> None:
    """Puts them in their places, in this process, for good."""
    for place, instead in _INSTEAD.items():
        names = place.split(".")
        for number in range(len(names) - 1, 0, -1):
            try:
                holder: Any = importlib.import_module(".".join(names[:number]))
            except ModuleNotFoundError:
                continue
            for name in names[number:-1]:
                holder = getattr(holder, name)
            # Fails where the name is another one now.
            getattr(holder, names[-1])
            setattr(holder, names[-1], instead)
            break
