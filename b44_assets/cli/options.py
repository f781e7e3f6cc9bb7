"""Options that several commands share, and the settings that they stand above."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from b44_assets.cli.terminal import print_line
from b44_assets.errors import CatalogError, ExportError, SettingsError

if TYPE_CHECKING:
    from b44_assets.catalog import Catalog
    from b44_assets.config.settings import Settings
    from b44_assets.session import Session


_APP = "b44.app"
_ORIGINS = "b44.origins"


def app_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--app`, which `settings_with` and `chosen_app` read."""

    def keep(context: click.Context, _: click.Parameter, value: Path | None) -> None:
        context.meta[_APP] = value

    return click.option(
        "--app",
        type=click.Path(path_type=Path),
        metavar="DIR",
        expose_value=False,
        callback=keep,
        help="The app folder; default this one or the nearest above it with a b44.toml.",
    )(command)


def chosen_app() -> Path | None:
    """What `--app` was given."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_APP)


def app_sql_dir() -> Path | None:
    """The SQL files of the app folder that a command works on; None where there is no such folder.

    Raises:
        SettingsError: As of `settings_with`.
    """
    from b44_assets.config.app_folder import find_app_folder

    folder = find_app_folder(Path.cwd(), chosen_app())
    return None if folder is None else folder.sql_dir


def export_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--export`."""
    return click.option(
        "--export",
        "export",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of the exported files; default B44_EXPORT_DIR.",
    )(command)


def database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--database-url`."""
    return click.option(
        "--database-url",
        metavar="URL",
        help="The target, such as postgresql://user@host/database; default B44_DATABASE_URL, else an embedded PostgreSQL.",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")(command)


def settings_with(*, reads: bool = False, **overrides: Any) -> Settings:
    """The settings of the environment, with what the options say instead.

    A command that may be told its target says on standard error which it works on, and where that was said.

    Args:
        reads: Whether the command only works on what is there, and so needs a target that is.
        overrides: By setting; `None` is as if not given.

    Raises:
        SettingsError: One of them cannot be used, or there is no target to read.
    """
    # Late: pydantic takes a third of a second, which `--help` need not wait for.
    from b44_assets.config.settings import Settings

    settings, origins = Settings.load_with_origins(app=chosen_app(), **overrides)
    click.get_current_context().meta[_ORIGINS] = origins
    if "database_url" in overrides:
        from b44_assets.postgres.embedded import target_exists, target_shown

        if reads and not target_exists(settings):
            raise SettingsError(
                f"there is no database yet: B44_DATABASE_URL is not set, and there is no embedded server under"
                f" {settings.home}; name one by --database-url, go to the folder of its .b44, or begin with b44 migrate"
            )
        tell_target(target_shown(settings), origin_of("database_url") or "no B44_DATABASE_URL is set")
    return settings


def origins() -> Mapping[str, str]:
    """Where each setting of `settings_with` comes from that is not the program's default: an option, a variable, a file."""
    context = click.get_current_context(silent=True)
    return {} if context is None or _ORIGINS not in context.meta else context.meta[_ORIGINS].given


def misspelt() -> Mapping[str, str]:
    """Where each variable stands that is no setting's and nearly spelt as one, and the variable that is meant."""
    return click.get_current_context().meta[_ORIGINS].misspelt


def origin_of(setting: str) -> str | None:
    """Where one of them comes from; None where it is the program's default."""
    return origins().get(setting)


def with_origins(line: str) -> str:
    """A line that names variables, each as it was really given: in which file it stands, or by which option."""
    known = origins()
    if not known:
        return line
    from b44_assets.config.settings import Settings

    for name, origin in known.items():
        variable = Settings.variable(name) if name in Settings.model_fields else name
        if origin != variable and origin not in line:
            said = origin if variable in origin or origin.startswith("--") else f"{variable} in {origin}"
            line = re.sub(rf"\b{variable}\b", lambda _, said=said: said, line, count=1)
    return line


def tell_target(shown: str, origin: str) -> None:
    """Says on standard error what a command works on, and where that was named."""
    print_line(f"target: {shown} ({origin})", err=True)


def session_of(settings: Settings) -> Session:
    """A session without Dagster, which takes seconds to load."""
    from b44_assets.session import Session

    return Session.of(settings, _catalog_of(settings))


def need_export(export: Path, settings: Settings, *, moves: bool = True) -> None:
    """Says at once what is wrong with the folder, and where it was named.

    Args:
        export: The folder.
        settings: In force.
        moves: Whether its records are to be moved, so that at least one must have a table.

    Raises:
        ExportError: It cannot be read, or holds no export.
        NothingMigratedOfExportError: No record has a table.
    """
    from b44_assets.runs.preconditions import check_export, require_table

    try:
        if moves:
            require_table(export, settings.sql_dir, _catalog_of(settings))
        else:
            check_export(export, _catalog_of(settings))
    except ExportError as error:
        origin = origin_of("export_dir")
        if origin in (None, "--export"):
            raise
        raise ExportError(f"{error} ({origin})") from error


def need_catalog(settings: Settings) -> None:
    """Says at once what is wrong with a file of `sql/`.

    Raises:
        CatalogError: One breaks the form.
    """
    _catalog_of(settings)


def _catalog_of(settings: Settings) -> Catalog:
    """The files of `sql/`, read once a command: what it checks at first is what it works by."""
    from b44_assets.catalog import load_catalog

    context = click.get_current_context(silent=True)
    known: dict[Path, Catalog] = {} if context is None else context.meta.setdefault(f"{__name__}.catalog", {})
    if settings.sql_dir not in known:
        if not settings.sql_dir.is_dir():
            origin = origin_of("sql_dir") or "of the app folder"
            raise CatalogError(f"{settings.sql_dir}: no such folder of SQL files ({origin})")
        known[settings.sql_dir] = load_catalog(settings.sql_dir)
    return known[settings.sql_dir]
