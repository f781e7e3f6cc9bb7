"""Which part of the graph a migration is limited to: some tables with what stands on them, one month, or all but some tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from b44_assets.catalog.headers import names_of
from b44_assets.config.quantities import month_from, month_text
from b44_assets.errors import SettingsError

if TYPE_CHECKING:
    from datetime import date

    from dagster import AssetKey

    from b44_assets.catalog import Catalog
    from b44_assets.session import Session


@dataclass(frozen=True)
class Selection:
    """A part of the graph.

    Attributes:
        tables: The tables whose records are migrated.
        only: The assets that are run, by name; None for all but those of `without`.
        without: Assets that are left out, by name.
        month: The month that is loaded, of tables with months; None for all.
    """

    tables: frozenset[str]
    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    month: str | None = None

    def chosen(self, keys: Iterable[AssetKey]) -> list[AssetKey]:
        """Those of the assets of a job that are run."""
        named = {"/".join(key.path): key for key in keys}
        return [
            key for name, key in named.items() if name not in self.without and (self.only is None or name in self.only)
        ]

    def completes(self, table: str) -> bool:
        """Whether no record of a table is to wait any more after the run."""
        return self.month is None and table in self.tables


def selection_of(
    session: Session,
    tables: Collection[str],
    left_out: Collection[str],
    month: str | None,
    say: Callable[[str], None],
) -> Selection | None:
    """What options select, having looked whether the tables that are read are there; None where they select everything.

    Args:
        session: Of the target.
        tables: Of `--table`.
        left_out: Of `--leave-out`.
        month: Of `--month`, as given.
        say: Takes a notice.

    Raises:
        SettingsError: A table or the month is wrong, or a table that is read was never migrated and is not selected.
    """
    from b44_assets.migration.chosen_tables import chosen_tables, tables_lacking, tables_read

    catalog = session.catalog
    chosen = chosen_tables(catalog, tables, left_out)
    key = None if month is None else month_text(_month(catalog, tables, month))
    if not tables and not left_out:
        return None
    if faults := tables_lacking(session, chosen, named=not left_out):
        raise faults[0]
    for table, read in tables_read(catalog, chosen).items():
        say(f"notice: {table} reads {', '.join(read)} as the database has them now")
    if tables:
        return Selection(chosen, only=_with_functions(catalog, chosen), month=key)
    # Its records alone: the schema is made as a whole, or it would differ from what the files say.
    return Selection(chosen, without=frozenset({*left_out, *(f"base44/{table}" for table in left_out)}))


def _month(catalog: Catalog, tables: Collection[str], month: str) -> date:
    if not tables:
        raise SettingsError("--month needs the table whose month it is: add --table")
    for table in tables:
        if not catalog.is_monthly(table):
            raise SettingsError(f"--month: {table} has no partition for each month")
    return month_from("--month", month)


def _with_what_stands_on(catalog: Catalog, tables: frozenset[str]) -> frozenset[str]:
    """The assets of some tables: their exports, rows, and partitions, indexes, constraints, triggers and policies."""
    standing = {spec.name for spec in catalog.specs if tables.intersection(names_of(spec.options.get("on", "")))}
    return frozenset({*tables, *(f"base44/{table}" for table in tables), *standing})


def _with_functions(catalog: Catalog, tables: frozenset[str]) -> frozenset[str]:
    """The assets of some tables and all else that they stand on, but for other tables with records."""
    from b44_assets.schema.preflight import needed

    own = _with_what_stands_on(catalog, tables)
    names = {*own, *(name for table in tables for name in catalog.mappings[table].spec.depends)}
    others = catalog.mappings.keys() - tables
    return own | needed(catalog, names - others) - others
