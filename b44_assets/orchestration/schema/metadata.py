"""Changes of the schema and checks of it as metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from b44_assets.maintenance.query_plans import QueryPlans
from b44_assets.orchestration.metadata import LISTED, named_lists, table
from b44_assets.schema.breaking_rows import BreakingRow
from b44_assets.schema.drift import SchemaDrift
from b44_assets.schema.health import (
    ConstraintsValid,
    ForeignKeysHold,
    IndexesValid,
    ViewEqualsQuery,
    ViewFresh,
)
from b44_assets.schema.online_ddl import SchemaChange
from b44_assets.schema.partition_checks import BoundsCheck, GlobalIds
from b44_assets.schema.partitions import PartitionSet
from b44_assets.schema.row_checks import Violations


def of_change(change: SchemaChange) -> dict[str, Any]:
    """What was done to the schema."""
    done = {name: what for what in ("created", "replaced", "repaired", "unchanged") for name in getattr(change, what)}
    done |= {name: f"failed: {why}" for name, why in change.failed.items()}
    return {
        "created": len(change.created),
        "replaced": len(change.replaced),
        "repaired": len(change.repaired),
        "unchanged": len(change.unchanged),
        "failed": len(change.failed),
        "online": change.online,
        "seconds": round(change.seconds, 3),
        "objects": table(("object", "done"), sorted(done.items())),
    }


def of_partitions(done: PartitionSet) -> dict[str, Any]:
    """What was done to a table's partitions, and what they are now."""
    facts: dict[str, Any] = {
        "partitions": len(done.partitions),
        "made": len(done.made),
        "detached": len(done.detached),
        "size_bytes": sum(part.size for part in done.partitions),
        "seconds": round(done.seconds, 3),
        "by_partition": table(
            ("partition", "bounds", "rows_estimated", "size_bytes"),
            [(part.name, part.bounds, part.rows, part.size) for part in reversed(done.partitions)],
        ),
    }
    if done.drained is not None:
        facts["rows_out_of_default"] = done.drained.rows
    if done.failed is not None:
        facts["failed"] = done.failed
    return facts | named_lists(detached_partitions=done.detached)


def of_bounds(verdict: BoundsCheck) -> dict[str, Any]:
    """What is wrong with a table's partitions."""
    return {
        "partitions": verdict.partitions,
        "rows_in_default": sum(verdict.default_rows.values()),
        **named_lists(
            gaps=tuple(map(str, verdict.gaps)),
            overlaps=tuple(" and ".join(pair) for pair in verdict.overlaps),
            detaching=verdict.detaching,
            missing_remainders=verdict.missing_hashes,
            default_holds=tuple(f"{period}: {rows} rows" for period, rows in verdict.default_rows.items()),
            in_the_way=(verdict.in_the_way,) if verdict.in_the_way else (),
        ),
    }


def of_global_ids(verdict: GlobalIds) -> dict[str, Any]:
    """Identifiers that stand in a table more than once."""
    return {
        "rows": verdict.rows,
        "repeated": verdict.repeated,
        **named_lists(examples=tuple(f"{one.id}: {', '.join(one.partitions)}" for one in verdict.examples)),
    }


def of_constraints(verdict: ConstraintsValid) -> dict[str, Any]:
    """How many constraints were looked at, and which are amiss."""
    return {
        "checked": verdict.checked,
        **named_lists(missing=verdict.missing, not_validated=verdict.not_validated),
        **_broken_by(verdict.broken_by),
    }


def of_indexes(verdict: IndexesValid) -> dict[str, Any]:
    """How many indexes were looked at, and which are amiss."""
    return {
        "checked": verdict.checked,
        **named_lists(missing=verdict.missing, invalid=verdict.invalid, incomplete=verdict.incomplete),
    }


def of_foreign_keys(verdict: ForeignKeysHold) -> dict[str, Any]:
    """References without a row, by foreign key."""
    return {
        "rows": verdict.rows,
        "orphans": sum(verdict.orphans.values()),
        "by_foreign_key": table(("foreign_key", "orphans"), list(verdict.orphans.items())),
        **_broken_by(verdict.broken_by),
    }


def _broken_by(rows: Sequence[BreakingRow]) -> dict[str, Any]:
    """The first rows that break constraints, a line for each value."""
    lines = [(row.rule, row.id, column, text) for row in rows for column, text in row.values]
    return {"broken_by": table(("constraint", "id", "column", "value"), lines)} if lines else {}


def of_violations(verdict: Violations) -> dict[str, Any]:
    """How many rows break a rule, and the first of them."""
    facts: dict[str, Any] = {"violations": verdict.count}
    if verdict.sample:
        rows = [tuple(row.values()) for row in verdict.sample]
        facts["sample"] = table(tuple(verdict.sample[0]), rows)
    return facts


def of_view_fresh(verdict: ViewFresh) -> dict[str, Any]:
    """How old the view is."""
    facts: dict[str, Any] = {"populated": verdict.populated, "changed_since": verdict.changed_since}
    if verdict.refreshed_at is not None and verdict.age is not None:
        facts |= {
            "refreshed_at": dg.MetadataValue.timestamp(verdict.refreshed_at),
            "age_minutes": round(verdict.age.total_seconds() / 60, 1),
        }
    return facts


def of_view_equals_query(verdict: ViewEqualsQuery) -> dict[str, Any]:
    """How many rows differ."""
    return {"rows": verdict.rows, "differing": verdict.differing}


def of_query_plans(verdict: QueryPlans) -> dict[str, Any]:
    """Each query, the index that serves it, and the partitions that it reads."""
    return {
        "queries": len(verdict.plans),
        "waiting": len(verdict.waiting),
        "index_chosen": sum(bool(plan.chosen) for plan in verdict.plans),
        "plans": table(
            ("query", "passed", "index", "chosen", "partitions_read", "partitions"),
            [
                (
                    plan.name,
                    plan.passed,
                    ", ".join(plan.chosen or plan.usable),
                    bool(plan.chosen),
                    plan.read,
                    plan.partitions,
                )
                for plan in verdict.plans
            ],
        ),
        "plan_texts": dg.MetadataValue.md(
            "\n\n".join(f"**{plan.name}**\n```\n{_cut(plan.text)}\n```" for plan in verdict.plans)
        ),
    }


def _cut(text: str) -> str:
    lines = text.splitlines()
    return "\n".join([*lines[:LISTED], *([f"… {len(lines) - LISTED} more lines"] if len(lines) > LISTED else [])])


def of_drift(verdict: SchemaDrift) -> dict[str, Any]:
    """What differs from `sql/`."""
    return {
        "compared": verdict.compared,
        "different": len(verdict.differences),
        "not_in_sql": len(verdict.restricting) + len(verdict.foreign),
        **named_lists(
            differences=verdict.differences,
            added_to_tables=verdict.restricting,
            privileges_beyond=verdict.excess,
            of_the_application=verdict.foreign,
        ),
    }
