"""The folder of an app: which files it has, and how `b44 init` writes them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath, PurePosixPath

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from b44_assets.config.app_folder import APP_FILE, AppFolder, find_app_folder
from b44_assets.config.packaged import packaged
from b44_assets.scaffold.files import STATE_FILE, Action, Changes, FolderError, apply_changes, plan_changes

_TEMPLATES = Path(__file__).parent / "project"
EXAMPLES = ("blog",)
_CONSTRAINT = re.compile(r"\badd constraint (?P<name>\w+|\"(?:[^\"]|\"\")+\")", re.IGNORECASE)


@dataclass(frozen=True)
class Project:
    """What the files beside `sql/` say.

    Attributes:
        name: Of the app.
        entities: Folder of the schemas, from the app folder or absolute; None without one.
        export: Folder of exports, likewise.
        source: Folder of the app's own source, likewise.
        strict: Whether records that break what is declared are refused.
        opened: Whether the group roles get the tables.
        example: The bundled example that the folder is a copy of, or None.
    """

    name: str
    entities: str | None = None
    export: str | None = None
    source: str | None = None
    strict: bool = False
    opened: bool = False
    example: str | None = None


def require_usable(folder: Path) -> AppFolder | None:
    """Tells whether a folder may be written: it is an app folder, which is returned, or empty or missing.

    Files and folders whose names begin with a dot are no obstacle.

    Raises:
        FolderError: It is something else.
        SettingsError: Its `b44.toml` cannot be used.
    """
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder} is no folder; name a new one")
    if (folder / APP_FILE).is_file():
        return find_app_folder(folder, folder)
    others = [] if not folder.exists() else sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    if others and not (folder / STATE_FILE).exists():
        raise FolderError(
            f"{folder} is not empty ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}) and has no {APP_FILE}:"
            " name a new folder"
        )
    return None


def written_path(path: Path, folder: Path) -> str:
    """A path as `b44.toml` has it: from the app folder, where both are below the same one; else absolute."""
    absolute, base = path.expanduser().absolute(), folder.absolute()
    common = Path(os.path.commonpath([absolute, base])) if absolute.anchor == base.anchor else Path(absolute.anchor)
    # Not by way of the root or of home, which say nothing on another machine.
    if common in (Path(common.anchor), Path.home()) and not absolute.is_relative_to(base):
        return str(absolute)
    return PurePath(os.path.relpath(absolute, base)).as_posix()


def project_files(project: Project) -> dict[PurePath, str]:
    """The files of a folder beside `sql/` and `DECISIONS.md`, by path from the folder."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    # A string of JSON is one of TOML as well.
    environment.filters["toml"] = lambda text: json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    names = {
        "b44.toml.j2": APP_FILE,
        "definitions.py.j2": "definitions.py",
        "gitignore.j2": ".gitignore",
        "pyproject.toml.j2": "pyproject.toml",
        "README.md.j2": "README.md",
        "workspace.yaml.j2": "workspace.yaml",
    }
    facts = {
        **asdict(project),
        "distribution": re.sub(r"[^a-z0-9]+", "-", project.name.lower()).strip("-") or "app",
    }
    files: dict[PurePath, str] = {
        PurePosixPath(name): environment.get_template(template).render(facts).rstrip("\n") + "\n"
        for template, name in names.items()
    }
    for name in ("dagster.yaml", ".env.example"):
        files[PurePosixPath(name)] = packaged(name).read_text(encoding="utf-8")
    return files


def example_files(example: str) -> dict[PurePath, str]:
    """The SQL files of a bundled example, by path from the app folder."""
    assert example in EXAMPLES
    source = packaged("sql")
    return {
        PurePosixPath("sql") / path.relative_to(source).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(source.rglob("*.sql"))
    }


def write_folder(folder: Path, files: Mapping[PurePath, str], *, dry_run: bool = False) -> Changes:
    """Writes the generated files of an app folder; what was edited by hand is kept.

    Args:
        folder: Of the app.
        files: Text by path from the folder.
        dry_run: Whether nothing is to be written.

    Returns:
        What becomes of each file.

    Raises:
        FolderError: A file cannot be read or written.
    """
    changes = plan_changes(folder, files)
    if not dry_run:
        # By its b44.toml it is known as an app folder, should the rest not be reached.
        apply_changes(folder, changes, first=[PurePosixPath(APP_FILE)])
    return changes


@dataclass(frozen=True)
class Doubled:
    """Constraints that stand in an edited file, and in another one to which the generation has moved them.

    Attributes:
        names: As SQL has them.
        kept: The edited file, from the folder.
        other: The generated one, likewise.
    """

    names: tuple[str, ...]
    kept: PurePosixPath
    other: PurePosixPath


def doubled_constraints(changes: Changes) -> tuple[Doubled, ...]:
    """Find the constraints that are in two files until what was generated is merged into the edited one."""
    generated = [
        (change.path, _constraints(change.after))
        for change in changes.of(Action.WRITTEN, Action.UPDATED, Action.UNCHANGED)
    ]
    found: list[Doubled] = []
    for change in changes.of(Action.DIFFERS, Action.KEPT):
        own = _constraints(change.before)
        for path, names in generated:
            if both := tuple(name for name in own if name in names):
                found.append(Doubled(both, change.path, path))
    return tuple(found)


def _constraints(text: str | None) -> dict[str, None]:
    """The names of the constraints that a file adds, in their order."""
    return {match["name"]: None for match in _CONSTRAINT.finditer(text or "")}
