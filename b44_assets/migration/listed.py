"""What a migration keeps as it is, and lists for a person to look at.

What belongs here: counting it, for a verdict and a report. What does not: the lists themselves, which the checks of the tables give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from b44_assets.catalog import FOREIGN_KEY, Kind, constraint_definitions, index_definitions
from b44_assets.scaffold.decisions import PAGE, open_entities_of
from b44_assets.schema.health import foreign_keys_hold
from b44_assets.schema.unbuilt import counts_in_the_way_of
from b44_assets.session import Session, scalar, trusted


@dataclass(frozen=True)
class BrokenRule:
    """A rule that holds for new rows, or would if there were none that break it, which are kept and listed.

    Attributes:
        table: The table.
        name: Of the constraint, or of the unique index.
        kind: `reference`, `constraint` or `unique index`.
        rows: How many rows break it.
    """

    table: str
    name: str
    kind: str
    rows: int


def listed(session: Session, app_folder: Path, dangling: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Count what is listed, by what one of it is called; what there is none of is left out.

    A dangling reference names a record that is not there, by a foreign key that rows of the migration may break. An open table is
    one of an entity with which everybody may do something in Base44, as the app's page of decisions says.

    Args:
        session: The run.
        app_folder: Where `sql/` and the page are.
        dangling: As `dangling_references` has counted them.
    """
    counts = {"dangling reference": sum(dangling.values()), "open table": _open(session, app_folder)}
    return {name: count for name, count in counts.items() if count}


def broken_rules(session: Session, dangling: Mapping[tuple[str, str], int]) -> tuple[BrokenRule, ...]:
    """Count the rows that break each rule which rows of the migration may break, by table and rule.

    Args:
        session: The run.
        dangling: As `dangling_references` has counted them, which is not done again.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    listed_of = {table: session.catalog.listed(table) for table in session.catalog.mappings}
    found = [BrokenRule(table, name, "reference", rows) for (table, name), rows in dangling.items()]
    with session.connection("look for broken rules") as conn:
        checks: list[tuple[str, str, str]] = conn.execute(
            "select c.relname, k.conname, pg_get_expr(k.conbin, k.conrelid)"
            " from pg_constraint k join pg_class c on c.oid = k.conrelid"
            " where k.contype = 'c' and not k.convalidated and c.relnamespace = 'public'::regnamespace"
        ).fetchall()
        for table, name, condition in checks:
            if name in listed_of.get(table, ()):
                count = sql.SQL("select count(*) from public.{} where not ({})").format(
                    sql.Identifier(table), trusted(condition)
                )
                found.append(BrokenRule(table, name, "constraint", scalar(conn, count)))
        indexes = {
            index.name: index.table
            for spec in session.catalog.of(Kind.INDEX)
            if spec.lists_unfit_rows
            for index in index_definitions(spec)
            if index.unique
        }
        found += [
            BrokenRule(indexes[name], name, "unique index", rows)
            for name, rows in counts_in_the_way_of(conn, indexes).items()
        ]
    return tuple(sorted((one for one in found if one.rows), key=lambda one: (one.table, one.name)))


def dangling_references(session: Session) -> dict[tuple[str, str], int]:
    """Count rows without the row that they point at, by table and foreign key, of those that rows of the migration may break.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    references = {
        (table, one.name): match["table"]
        for spec in session.catalog.of(Kind.CONSTRAINT)
        for one in constraint_definitions(spec)
        if (match := FOREIGN_KEY.match(one.rest)) and one.name in session.catalog.listed(table := spec.options["on"])
    }
    with session.connection("look for dangling references") as conn:
        whole: list[tuple[str, str]] = conn.execute(
            "select c.relname, k.conname from pg_constraint k join pg_class c on c.oid = k.conrelid"
            " where k.contype = 'f' and k.convalidated and c.relnamespace = 'public'::regnamespace"
        ).fetchall()
        tables = {
            name
            for (name,) in conn.execute(
                "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
            )
        }
    unsure = {
        key for key, target in references.items() if key not in whole and {key[0], target.strip(' "\n')} <= tables
    }
    return {
        (table, name): count
        for table in sorted({table for table, _ in unsure})
        for name, count in foreign_keys_hold(session, table).orphans.items()
        if (table, name) in unsure
    }


def _open(session: Session, app_folder: Path) -> int:
    if not (page := app_folder / PAGE).is_file():
        return 0
    named = open_entities_of(page.read_text(encoding="utf-8", errors="replace"))
    return sum(mapping.entity in named for mapping in session.catalog.mappings.values())
