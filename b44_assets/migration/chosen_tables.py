"""The tables that a migration is limited to, and the tables that these read."""

from __future__ import annotations

from collections.abc import Collection

from b44_assets.catalog import Catalog
from b44_assets.errors import SettingsError
from b44_assets.migration.accounts import accounts
from b44_assets.session import Session


def chosen_tables(catalog: Catalog, tables: Collection[str], left_out: Collection[str]) -> frozenset[str]:
    """The tables that options choose.

    Args:
        catalog: The files of `sql/`.
        tables: Those of `--table`; none chooses all.
        left_out: Those of `--leave-out`.

    Raises:
        SettingsError: There is no such table, or both are given.
    """
    for option, names in (("--table", tables), ("--leave-out", left_out)):
        if unknown := [name for name in names if name not in catalog.mappings]:
            raise SettingsError(f"{option}: no table {unknown[0]}; there are {', '.join(catalog.mappings)}")
    if tables and left_out:
        raise SettingsError("name either the tables to migrate by --table, or those to leave out by --leave-out")
    return frozenset(tables or catalog.mappings.keys() - left_out)


def tables_read(catalog: Catalog, chosen: Collection[str]) -> dict[str, list[str]]:
    """Which tables with records the chosen ones read that are not chosen themselves; those that read none are left out."""
    found = {
        table: [name for name in mapping.spec.depends if name in catalog.mappings and name not in chosen]
        for table, mapping in catalog.mappings.items()
        if table in chosen
    }
    return {table: names for table, names in found.items() if names}


def tables_lacking(session: Session, chosen: Collection[str], *, named: bool) -> list[SettingsError]:
    """A fault for each chosen table that reads one of which nothing was migrated, with the remedy.

    Args:
        session: Of the target.
        chosen: The tables.
        named: Whether they were named, rather than others left out.
    """
    read = tables_read(session.catalog, chosen)
    there = {account.entity for account in accounts(session)} if read else set[str]()
    faults: list[SettingsError] = []
    for table, names in read.items():
        if missing := [name for name in names if name not in there]:
            added = " ".join(f"--table {name}" for name in missing)
            remedy = f"add {added}, or migrate everything once" if named else f"--leave-out {table}, too"
            faults.append(
                SettingsError(f"{table} reads {', '.join(missing)}, of which nothing is migrated yet: {remedy}")
            )
    return faults
