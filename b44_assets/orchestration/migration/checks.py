"""The checks of migrated records: every record accounted for, every row as its record, all of the newest export applied."""

from collections.abc import Callable, Iterator

import dagster as dg

from b44_assets.catalog import Catalog, TableMapping
from b44_assets.migration.content_parity import ContentParity, content_parity
from b44_assets.migration.verification import Applied, RowParity, export_applied, row_parity
from b44_assets.orchestration.common import VERIFY_ANEW_TAG, VERIFY_JOB, Answer, answered, key_of
from b44_assets.orchestration.migration.jobs import DELTA_JOB, MIGRATE_JOB
from b44_assets.orchestration.migration.metadata import of_content_parity, of_export_applied, of_row_parity
from b44_assets.orchestration.resources import Migration


def build_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """The checks of every table that records are loaded into, a step a table."""
    return [_parity(catalog, mapping) for mapping in catalog.mappings.values()]


def _parity(catalog: Catalog, mapping: TableMapping) -> dg.AssetChecksDefinition:
    table = mapping.spec.name
    key = key_of(table)
    by_month = catalog.is_monthly(table)
    rows = dg.AssetCheckSpec(
        "row_parity",
        asset=key,
        blocking=True,
        description="Every record read is migrated, deduplicated or quarantined, and the table holds every migrated one.",
    )
    content = dg.AssetCheckSpec(
        "content_parity",
        asset=key,
        blocking=True,
        description="Every stored row is what the mapping makes of the staged record, by a 64-bit checksum of each row.",
    )

    applied = dg.AssetCheckSpec(
        "export_applied",
        asset=key,
        description="All of the newest export is in the table: no row was left alone for an edit of its own, and no record"
        " has vanished. See migration.conflicts and migration.retained.",
    )

    @dg.multi_asset_check(name=f"{table}_parity", specs=[rows, content, applied], can_subset=True)
    def parity(
        context: dg.AssetCheckExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.AssetCheckResult]:
        selected = {check.name for check in context.selected_asset_check_keys}
        # A run that loads knows what its records were mapped to; whoever asks for the check wants it from the records.
        loads = context.run.job_name in (MIGRATE_JOB, DELTA_JOB) and VERIFY_ANEW_TAG not in context.run.tags
        with migration.session(context, reads=context.run.job_name == VERIFY_JOB) as session:
            state = migration.state(context, session)
            if state.over:
                said = f"not applicable: {state.whereabouts()}"
                for name in sorted(selected):
                    yield Answer(True, said).result(key, name)
                return
            questions: dict[str, Callable[[], Answer]] = {
                "row_parity": lambda: _row_answer(row_parity(session, mapping), by_month=by_month),
                "content_parity": lambda: _content_answer(
                    content_parity(session, mapping, anew=not loads), in_use=loads
                ),
                "export_applied": lambda: _applied_answer(export_applied(session, mapping)),
            }
            yield from answered(
                session, [(dg.AssetCheckKey(key, name), ask) for name, ask in questions.items() if name in selected]
            )

    return parity


_NOTHING_MIGRATED = Answer(False, "Nothing has been migrated yet")


def _row_answer(counted: RowParity | None, *, by_month: bool) -> Answer:
    if counted is None:
        return _NOTHING_MIGRATED
    # Months that were not asked for are no fault of those that were: a warning, which blocks nothing.
    waiting = by_month and counted.pending > 0 and counted.unaccounted == 0 and counted.lost <= 0
    return Answer.of(counted, of_row_parity(counted), warns=waiting)


def _content_answer(compared: ContentParity | None, *, in_use: bool) -> Answer:
    if compared is None:
        return _NOTHING_MIGRATED
    # What an application does meanwhile is no fault of a load: a warning, which blocks nothing. Who asks for the check itself
    # wants to know of every row that is not as its record.
    excused = in_use and compared.written and not compared.passed
    # After a restoration there is no staged export to compare with, which is no fault of the rows.
    excused |= not in_use and not compared.staged and compared.kept
    return Answer.of(compared, of_content_parity(compared), warns=excused)


def _applied_answer(applied: Applied) -> Answer:
    return Answer.of(applied, of_export_applied(applied), warns=True)
