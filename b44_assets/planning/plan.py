"""A migration planned by its own steps, on a throw-away server: stage, resolve versions, plan, and load what other tables read.

What belongs here: which steps are taken, and gathering what they come to. What does not: any rule on records or schema; the
steps are those of a migration.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from psycopg import sql

from b44_assets.catalog import Catalog, TableMapping, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.config.stages import STEP, Stage
from b44_assets.errors import B44Error, DatabaseError, ExportError, FinishedError, nothing_has_a_table
from b44_assets.exports import survey
from b44_assets.exports.model import BUILT_IN_FIELDS, INTERNAL_FIELDS
from b44_assets.migration.chosen_tables import chosen_tables, tables_lacking
from b44_assets.migration.corrections import correct
from b44_assets.migration.finish import migration_state
from b44_assets.migration.parts import EVERY_PARTITION, parts_of
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.migration.plan import LoadPlan, make_plan
from b44_assets.migration.staging import StagedExport, hand_staged
from b44_assets.migration.unmapped_entities import UnmappedEntity, keep_unmapped
from b44_assets.planning.model import MigrationPlan, PlannedEntity, PlannedTable
from b44_assets.planning.scratch_target import copy_rows, require_readable, scratch_target
from b44_assets.postgres.embedded import target_exists, target_shown
from b44_assets.schema.drift import declared_objects, schema_changes
from b44_assets.schema.preflight import need_room
from b44_assets.session import Connection, Progress, Session, scalar, silent, unsaid


@dataclass
class _Findings:
    """What has been found so far."""

    entities: list[PlannedEntity] = field(default_factory=list[PlannedEntity])
    tables: list[PlannedTable] = field(default_factory=list[PlannedTable])
    warnings: list[str] = field(default_factory=list[str])
    faults: list[B44Error] = field(default_factory=list[B44Error])
    failed: set[str] = field(default_factory=set[str])


@dataclass
class _Steps:
    """The steps of a plan, told as they begin: a server, what the files make on it, the target's rows, tables, other entities."""

    progress: Progress
    tables: int
    begun: int = 0

    def begin(self, stage: Stage, subject: str) -> None:
        """Tells that the next one begins."""
        self.begun += 1
        self.progress(f"{STEP}{stage} {subject}", self.begun, self.tables + 4)


def plan_migration(
    settings: Settings,
    *,
    tables: Collection[str] = (),
    left_out: Collection[str] = (),
    progress: Progress = silent,
    notice: Callable[[str], None] = unsaid,
) -> MigrationPlan:
    """Finds out what a migration would do. The target is read and nothing else, by a role that may do no more than that.

    What the plan of a record depends on, the rows of the target and what was migrated before, is copied to a throw-away server
    on the disk of `TMPDIR`, and the migration's own steps run there.

    Args:
        settings: In force.
        tables: Those that are planned; by default all.
        left_out: Those of them that are not.
        progress: Told how far it is.
        notice: Told, in a line, what needs nothing to be done.

    Raises:
        CatalogError: A file of `sql/` breaks the form.
        ExportError: The export's folder cannot be read, or there is no export.
        FinishedError: The migration is over.
        DatabaseError: The target cannot be reached or read.
        BackupError: No scratch server can be made.
    """
    catalog = load_catalog(settings.sql_dir)
    if settings.export_dir is not None:
        # At once, before any server is waited for.
        survey(settings.export_dir, catalog.entities)
    chosen = chosen_tables(catalog, tables, left_out)
    found = _Findings()
    session = _existing_target(settings, catalog)
    steps = _Steps(progress, len(chosen))
    with _reading(session) as target:
        if target is not None and session is not None:
            require_readable(target, catalog)
            _look_at_target(session, found)
        if settings.export_dir is None and (target is None or not hand_staged(target, catalog)):
            raise ExportError("no export: name its folder with --export DIR or B44_EXPORT_DIR")
        of_scratch = Session.of(settings, catalog, url="", progress=progress, notice=notice)
        steps.begin(Stage.STARTING, "a server for the plan")
        with scratch_target(of_scratch, settings.pg_bin) as scratch:
            steps.begin(Stage.SCHEMA, "of the SQL files")
            wanted = declared_objects(scratch)
            with scratch.connection("look") as conn:
                version = conn.info.server_version
            schema = schema_changes(scratch, wanted, version, target)
            before = False
            steps.begin(Stage.COPYING, "the target's rows")
            if target is not None:
                before = bool(scalar(target, "select to_regclass('migration.migrated') is not null")) and bool(
                    scalar(target, "select exists (select from migration.migrated)")
                )
                try:
                    copy_rows(target, scratch)
                except DatabaseError as error:
                    # A table that is in the way has columns of other types; what it is says more than the value that does not fit.
                    raise (found.faults[0] if found.faults else error) from error
            found.faults += tables_lacking(scratch, chosen, named=not left_out)
            _plan_tables(settings, scratch, found, chosen, steps)
            steps.begin(Stage.READING, "entities without a table")
            _look_at_others(settings, scratch, found)
    return MigrationPlan(
        target=target_shown(settings),
        migrated_before=before,
        entities=tuple(found.entities),
        tables=tuple(found.tables),
        schema=schema,
        warnings=tuple(dict.fromkeys(found.warnings)),
        faults=tuple(found.faults),
    )


def _existing_target(settings: Settings, catalog: Catalog) -> Session | None:
    """The target; None where that is an embedded server that was never started: it would be made."""
    return Session.of(settings, catalog) if target_exists(settings) else None


@contextmanager
def _reading(session: Session | None) -> Generator[Connection | None]:
    """A connection in a transaction that only reads, on one snapshot of the target."""
    if session is None:
        yield None
        return
    with session.connection("plan", idles=True) as conn, conn.transaction():
        conn.execute("set transaction isolation level repeatable read read only")
        yield conn


def _look_at_target(session: Session, found: _Findings) -> None:
    """Whether the target can take a migration.

    Raises:
        FinishedError: The migration is over.
    """
    if (state := migration_state(session)).over:
        raise FinishedError(
            f"nothing to plan: {state.message()}; a newer export goes into another database (--database-url)"
        )
    try:
        need_room(session, only_look=True)
    except B44Error as fault:
        found.faults.append(fault)


def _plan_tables(
    settings: Settings, session: Session, found: _Findings, chosen: Collection[str], steps: _Steps
) -> None:
    catalog = session.catalog
    read = {name for mapping in catalog.mappings.values() for name in mapping.spec.depends}
    for table, mapping in catalog.mappings.items():
        if table not in chosen:
            continue
        steps.begin(Stage.READING, table)
        try:
            staged = stage_export(session, mapping, settings.export_dir)
        except B44Error as fault:
            found.faults.append(fault)
            found.failed.add(table)
            continue
        if staged.file is not None:
            found.entities.append(_entity(mapping, staged))
        if warning := staged.warning(mapping):
            found.warnings.append(warning)
        if waits := [name for name in mapping.spec.depends if name in found.failed]:
            found.failed.add(table)
            found.warnings.append(f"{table} is not planned: it reads {', '.join(waits)}, which cannot be loaded")
            continue
        try:
            plan = _planned(settings, session, mapping, loaded=table in read)
        except B44Error as fault:
            found.faults.append(fault)
            found.failed.add(table)
        else:
            found.tables.append(_table(session, plan))


def _planned(settings: Settings, session: Session, mapping: TableMapping, *, loaded: bool) -> LoadPlan:
    """The plan of a table; its rows are loaded, too, where another table's mapping reads them."""
    first = settings.first_month if session.catalog.is_monthly(mapping.spec.name) else None
    if loaded:
        return load_table(session, mapping, EVERY_PARTITION, first).plan
    correct(session, mapping)
    plan = make_plan(session, mapping)
    with session.connection(f"plan {mapping.spec.name}") as conn:
        parts_of(conn, session.catalog, mapping, EVERY_PARTITION, first)
    return plan


def _entity(mapping: TableMapping, staged: StagedExport) -> PlannedEntity:
    read = {name for item in mapping.fields for name in item.spellings}
    unknown = [name for name in staged.fields if name not in read and name not in (*BUILT_IN_FIELDS, *INTERNAL_FIELDS)]
    return PlannedEntity(
        entity=mapping.entity,
        table=mapping.spec.name,
        file=staged.file,
        dialect=staged.dialect,
        records=staged.records,
        oddities=staged.oddities,
        unknown_fields=tuple(unknown),
    )


def _table(session: Session, plan: LoadPlan) -> PlannedTable:
    with session.connection(f"look at {plan.entity}") as conn:
        actions: dict[str, int] = dict(
            conn.execute(
                sql.SQL("select _action, count(*) from migration.{} group by 1").format(
                    sql.Identifier(f"{plan.entity}_plan")
                )
            ).fetchall()
        )
    return PlannedTable(
        table=plan.entity,
        read=plan.read,
        new=actions.get("insert", 0),
        changed=actions.get("update", 0),
        unchanged=plan.unchanged,
        deduplicated=plan.deduplicated,
        quarantined=plan.quarantined,
        vanished=plan.vanished,
        reasons=plan.reasons,
        conflicts=plan.conflicts,
    )


def _look_at_others(settings: Settings, session: Session, found: _Findings) -> None:
    """Entities without a table, and whether that is all that the export has."""
    try:
        kept = keep_unmapped(session, settings.export_dir)
    except B44Error as fault:
        found.faults.append(fault)
        return
    found.entities += [_without_table(one) for one in kept.entities]
    found.warnings += kept.warnings
    files = [one for one in found.entities if one.table is not None]
    nothing_read = not any(one.records for one in files)
    if found.faults or settings.export_dir is None or not kept.entities or not nothing_read:
        return
    if kept.records and (sum(kept.records.values()) or not files):
        found.faults.append(nothing_has_a_table(settings.export_dir, settings.sql_dir, kept.records))


def _without_table(one: UnmappedEntity) -> PlannedEntity:
    return PlannedEntity(entity=one.entity, table=None, file=one.file, dialect=None, records=one.records)
