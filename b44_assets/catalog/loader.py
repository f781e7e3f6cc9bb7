"""The files of a folder, read and checked."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn, TypeVar

from b44_assets.catalog.definitions import (
    FORMS,
    constraint_definitions,
    index_definitions,
    row_check,
    view_definition,
)
from b44_assets.catalog.headers import (
    ACCESS,
    COMMON_KEYS,
    HEADER_KEYS,
    HEADER_LINE,
    RENAMED_KEYS,
    STANDARD_ROLES,
    mapping_of,
    meant,
    names_of,
)
from b44_assets.catalog.model import SEED, Kind, RowCheck, Spec, TableMapping
from b44_assets.catalog.references import (
    check_audited,
    check_columns,
    check_exchangeable,
    check_grants,
    check_names,
    check_reads,
    check_uses,
    granted_on_all,
    in_order,
    routines_of,
)
from b44_assets.catalog.statements import split_statements
from b44_assets.config.quantities import EARLIEST_MONTH, period_from, period_text
from b44_assets.errors import CatalogError

K = TypeVar("K")

_FOLDERS = tuple(kind.value for kind in Kind if kind is not Kind.RUNTIME)
_OF_PROGRAM = frozenset({Kind.RUNTIME.value, "books", "migration", "b44"})
"""Folders that held the program's own SQL in version 0.1, and what one may take for its place now."""
_RUNTIME = Path(__file__).parents[1] / "runtime"
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*$")


@dataclass(frozen=True)
class GroupRights:
    """What the program's own group roles may do with objects of an app, as `b44.standard_access` takes it.

    Attributes:
        relations: Tables and views with `name`, `access`, and whether they are `secured` by policies.
        routines: Functions with `name` and `role_name`.
        opened: Whether the application has anything of the folder, so that it also gets what is made by hand later.
    """

    relations: tuple[Mapping[str, str | bool], ...]
    routines: tuple[Mapping[str, str], ...]
    opened: bool


@dataclass(frozen=True)
class Catalog:
    """All of `sql/`.

    Attributes:
        root: The folder.
        specs: Every file, each after what it depends on; otherwise by stage and name.
        mappings: Mappings by target table.
    """

    root: Path
    specs: tuple[Spec, ...]
    mappings: Mapping[str, TableMapping]

    def of(self, *kinds: Kind) -> tuple[Spec, ...]:
        """The files of some kinds, in order."""
        if len(kinds) == 1:
            return self._by_kind.get(kinds[0], ())
        return tuple(spec for spec in self.specs if spec.kind in kinds)

    # Asked for each table of a run, of which there may be hundreds.

    @cached_property
    def _by_kind(self) -> Mapping[Kind, tuple[Spec, ...]]:
        return _grouped((spec.kind, spec) for spec in self.specs)

    @cached_property
    def _by_table(self) -> Mapping[tuple[Kind, str], tuple[Spec, ...]]:
        return _grouped(((spec.kind, spec.options["on"]), spec) for spec in self.specs if "on" in spec.options)

    @cached_property
    def _tables(self) -> Mapping[str, Spec]:
        return {spec.name: spec for spec in self.of(Kind.TABLE)}

    def table(self, name: str) -> Spec:
        """The file of a table.

        Raises:
            KeyError: There is none.
        """
        return self._tables[name]

    def is_monthly(self, table: str) -> bool:
        """Whether a table has a partition for each month, and is loaded month by month."""
        period = self.table(table).period
        return period is not None and period.unit == "month"

    def on(self, table: str, kind: Kind) -> tuple[Spec, ...]:
        """The files of a kind about a table, in order."""
        return self._by_table.get((kind, table), ())

    def partitions(self, table: str) -> Spec | None:
        """The file of a table's partitions, if there is one."""
        return next(iter(self.on(table, Kind.PARTITION)), None)

    def upstream(self, spec: Spec) -> tuple[str, ...]:
        """What a file comes after in a migration.

        A policy makes the roles that it names itself, without rights: what a role may do is granted only once the policies of
        these tables are there.
        """
        roles = {one.name for one in self.of(Kind.ROLE)}
        named = (*spec.depends, *names_of(spec.options.get("on", "")))
        if spec.kind is Kind.POLICY:
            named = tuple(name for name in named if name not in roles)
        if spec.kind is Kind.ROLE:
            named += tuple(one.name for one in self.of(Kind.POLICY) if one.options["on"] in named)
        return tuple(dict.fromkeys(named))

    @property
    def opened(self) -> bool:
        """Whether the application has any table or view of the folder."""
        return any(spec.options.get("access") != "none" for spec in self.of(Kind.TABLE, Kind.VIEW))

    def access_of(self, names: Iterable[str] | None = None) -> GroupRights:
        """What the program's own group roles may do with objects of the folder.

        Args:
            names: Files, also those of policies on a table; by default all.
        """
        wanted = None if names is None else set(names)
        secured = {one.options["on"] for one in self.of(Kind.POLICY)}
        chosen = [
            spec for spec in self.of(Kind.FUNCTION, Kind.TABLE, Kind.VIEW) if wanted is None or spec.name in wanted
        ]
        return GroupRights(
            tuple(
                {"name": spec.name, "access": spec.options.get("access", "write"), "secured": spec.name in secured}
                for spec in chosen
                if spec.kind is not Kind.FUNCTION
            ),
            tuple(
                {"name": routine, "role_name": role}
                for spec in chosen
                for role in names_of(spec.options.get("execute", ""))
                for routine in routines_of(spec)
            ),
            self.opened,
        )

    def roles_of(self, spec: Spec) -> tuple[Spec, ...]:
        """The files of the roles that a file depends on, in order."""
        return tuple(one for one in self.of(Kind.ROLE) if one.name in spec.depends)

    def listed(self, table: str) -> frozenset[str]:
        """The constraints and unique indexes of a table that rows of the migration may break: those rows are listed."""
        specs = [spec for spec in self.on(table, Kind.CONSTRAINT) if spec.lists_unfit_rows]
        indexes = [spec for spec in self.on(table, Kind.INDEX) if spec.lists_unfit_rows]
        return frozenset(
            (
                *(one.name for spec in specs for one in constraint_definitions(spec)),
                *(one.name for spec in indexes for one in index_definitions(spec) if one.unique),
            )
        )

    def listing(self, table: str) -> Mapping[str, str]:
        """Which check lists the rows that break a constraint or a unique index of a table, by its name."""
        return {
            rule: spec.name for spec in self.on(table, Kind.CHECK) for rule in names_of(spec.options.get("lists", ""))
        }

    @property
    def materialized_views(self) -> tuple[Spec, ...]:
        """The files of views that have rows of their own, in order."""
        return tuple(spec for spec in self.of(Kind.VIEW) if view_definition(spec).materialized)

    @property
    def plain_views(self) -> tuple[Spec, ...]:
        """The files of views without rows of their own, in order."""
        return tuple(spec for spec in self.of(Kind.VIEW) if not view_definition(spec).materialized)

    @property
    def checks(self) -> Mapping[str, RowCheck]:
        """Checks of rows by name, in order."""
        return {spec.name: row_check(spec) for spec in self.of(Kind.CHECK)}

    @property
    def entities(self) -> Mapping[str, str]:
        """Target table by Base44 entity."""
        return {mapping.entity: table for table, mapping in self.mappings.items()}


def _grouped(pairs: Iterable[tuple[K, Spec]]) -> dict[K, tuple[Spec, ...]]:
    found: dict[K, list[Spec]] = {}
    for key, spec in pairs:
        found.setdefault(key, []).append(spec)
    return {key: tuple(specs) for key, specs in found.items()}


def load_catalog(root: Path) -> Catalog:
    """Reads and checks the folder `sql/`.

    Raises:
        CatalogError: A file breaks the form; names the file and the line.
    """
    if not root.is_dir():
        raise CatalogError(f"{root}: no such folder (B44_SQL_DIR)")
    _check_places(root)
    of_app: list[Spec] = []
    for kind in Kind:
        if kind is not Kind.RUNTIME:
            paths = sorted(path for path in (root / kind.value).glob("*.sql") if _is_sql(path))
            of_app.extend(_read(path, kind, path.stem) for path in paths)
    if not of_app:
        raise CatalogError(f"{root}: holds no SQL files in {', '.join(_FOLDERS)}")
    of_app = granted_on_all(of_app)
    runtime = load_runtime()
    specs = [*runtime, *of_app]
    mappings = {spec.name: mapping_of(spec) for spec in specs if spec.kind is Kind.MAPPING}
    check_names(specs)
    ordered = (*runtime, *in_order(of_app))
    for spec in specs:
        if (check := FORMS.get(spec.kind)) is not None:
            check(spec)
    check_uses(specs)
    check_exchangeable(specs, mappings)
    check_columns(specs, mappings)
    check_reads(specs)
    check_grants(specs)
    check_audited(specs)
    return Catalog(
        root, ordered, MappingProxyType({s.name: mappings[s.name] for s in ordered if s.kind is Kind.MAPPING})
    )


@cache
def load_runtime() -> tuple[Spec, ...]:
    """Reads the SQL that comes with the program: what every app's migration stands on, in the order in which it is installed.

    Once a process.
    """
    paths = sorted(_RUNTIME.glob("*/*.sql"))
    return in_order([_read(path, Kind.RUNTIME, f"{path.parent.name}/{path.stem}") for path in paths])


def _check_places(root: Path) -> None:
    """Every SQL file has a kind: one in a folder that nobody reads would be missed only when it is needed."""
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        _cannot_list(error)
    for entry in entries:
        if entry.is_dir():
            found = _sql_files(entry)
            if not found:
                continue
            if entry.name in _OF_PROGRAM:
                raise CatalogError(
                    f"{entry}: the migration's own tables and functions come with the program; remove this folder"
                )
            if entry.name not in _FOLDERS:
                raise CatalogError(
                    f"{entry}: there is no such kind{meant(entry.name, _FOLDERS)}; there are {', '.join(_FOLDERS)}"
                )
            for path in found:
                if path.parent != entry:
                    raise CatalogError(f"{path}: SQL files stand in {entry} itself, not in a folder of it")
                if path.suffix != ".sql":
                    raise CatalogError(f"{path}: is not read; its name must end with .sql in lower case")
        elif _is_sql(entry):
            raise CatalogError(f"{entry}: an SQL file stands in the folder of its kind: {', '.join(_FOLDERS)}")


def _sql_files(folder: Path) -> list[Path]:
    """The SQL files below a folder, in order; hidden ones are nobody's."""
    found: list[Path] = []
    if folder.name.startswith("."):
        return found
    # A folder that is closed is not taken for an empty one: without its files tables would be made without their rules.
    for place, folders, files in os.walk(folder, onerror=_cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.extend(path for name in files if _is_sql(path := Path(place, name)))
    return sorted(found)


def _cannot_list(error: OSError) -> NoReturn:
    raise CatalogError(f"{error.filename}: cannot be listed: {error.strerror}") from error


def _is_sql(path: Path) -> bool:
    return path.suffix.lower() == ".sql" and not path.name.startswith(".")


def _read(path: Path, kind: Kind, name: str) -> Spec:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: cannot be read: {error}") from error
    if not _IDENTIFIER.match(path.stem):
        raise CatalogError(f"{path}: the file's name must be the object's: lower case letters, digits and _")
    allowed = HEADER_KEYS.get(kind, COMMON_KEYS)
    description: list[str] = []
    options: dict[str, str] = {}
    lines: dict[str, int] = {}
    key: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("--"):
            break
        if match := HEADER_LINE.match(line):
            key = str(match["key"])
            if (now := RENAMED_KEYS.get(key)) in allowed:
                raise CatalogError(f"{path}:{number}: header '{key}' is called '{now}' now")
            if key not in allowed:
                raise CatalogError(
                    f"{path}:{number}: unknown header '{key}'{meant(match['key'], allowed)}; {kind} know {', '.join(sorted(allowed))}"
                )
            if key in options:
                raise CatalogError(f"{path}:{number}: header '{key}' stands there twice")
            options[key], lines[key] = match["value"], number
        elif key is not None and line.startswith("--   "):
            options[key] += " " + line[2:].strip()
        elif key is not None:
            raise CatalogError(f"{path}:{number}: expected '-- key: value', or three spaces to go on with '{key}'")
        else:
            description.append(line[2:].strip())
    if not any(description):
        raise CatalogError(f"{path}:1: the first comment must say what this is")
    statements = tuple(split_statements(text, path))
    if not statements:
        raise CatalogError(f"{path}: holds no statement")
    depends = names_of(options.pop("depends", ""))
    spec = Spec(
        name=name,
        kind=kind,
        description=" ".join(description).strip(),
        depends=depends,
        statements=statements,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        path=path,
        options=MappingProxyType(options),
    )
    if "partitions" in options and not re.fullmatch(r"(month|year) of [a-z_][a-z0-9_]*", options["partitions"]):
        raise CatalogError(f"{path}:{lines['partitions']}: expected 'month of <column>' or 'year of <column>'")
    if (first := options.get("first")) is not None:
        _check_first(f"{path}:{lines['first']}", spec.options.get("partitions"), first)
    if "seed" in options and not SEED.fullmatch(options["seed"]):
        raise CatalogError(f"{path}:{lines['seed']}: expected '<column> = '<value>'[, '<value>' …]'")
    if (access := options.get("access", "write")) not in ACCESS:
        raise CatalogError(
            f"{path}:{lines['access']}: expected {', '.join(ACCESS)}, not '{access}'{meant(access, ACCESS)}"
        )
    if options.get("audited", "yes") != "yes":
        raise CatalogError(f"{path}:{lines['audited']}: expected 'audited: yes', or no such header")
    for role in names_of(options.get("execute", "")):
        if role not in STANDARD_ROLES:
            raise CatalogError(
                f"{path}:{lines['execute']}: 'execute' names one of {', '.join(STANDARD_ROLES)}, not {role}"
                f"{meant(role, STANDARD_ROLES)}"
            )
    if kind is Kind.ROLE and name in STANDARD_ROLES:
        raise CatalogError(
            f"{path}:1: {name} comes with the program: give the role of another file to it, or headers to tables"
        )
    if options.get("unfit_rows", "listed") != "listed":
        raise CatalogError(
            f"{path}:{lines['unfit_rows']}: expected 'unfit_rows: listed', not '{options['unfit_rows']}'"
        )
    if "ahead" in options and not re.fullmatch(r"[0-9]{1,3}", options["ahead"]):
        raise CatalogError(
            f"{path}:{lines['ahead']}: expected how many periods after the current one shall have a partition"
        )
    return spec


def _check_first(place: str, partitions: str | None, first: str) -> None:
    """The first period is one of the table's, no earlier than partition keys are believed and no later than today's."""
    if partitions is None:
        raise CatalogError(f"{place}: 'first' is for a table with periods, such as '-- partitions: month of <column>'")
    unit = partitions.split()[0]
    earliest, now = period_text(unit, EARLIEST_MONTH), period_text(unit, datetime.now(UTC).date())
    try:
        given = period_text(unit, period_from(unit, first))
    except ValueError as error:
        raise CatalogError(f"{place}: expected {error}, not '{first}', for the partitions are by {unit}") from None
    if not earliest <= given <= now:
        raise CatalogError(f"{place}: expected a {unit} from {earliest} to {now}, not {given}")
