"""The folder of an app: how it is found, and what its file `b44.toml` says.

The file is kept by hand and goes into version control, so that no secret may stand in it. Nothing here writes.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from b44_assets.config.quantities import month
from b44_assets.errors import SettingsError

APP_FILE = "b44.toml"
_SECRET = re.compile(r"[A-Za-z][\w+.-]*://[^/?#\s@]*:[^/?#\s@]+@")
"""A URL with a password in it."""
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def _identifier(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError("a name in lower case such as order_lines, of at most 63 letters, digits and _")
    return name


def _month(text: str) -> str:
    month(text)
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("not blank")
    return text


_Identifier = Annotated[str, AfterValidator(_identifier)]
_Text = Annotated[str, AfterValidator(_not_blank)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class FieldOverride(_Part):
    """What is to become of a field, whatever would be inferred."""

    column: _Identifier | None = None
    """The name of its column."""
    type: (
        Literal[
            "text", "text[]", "uuid", "uuid[]", "numeric", "bigint", "boolean", "timestamptz", "date", "time", "jsonb"
        ]
        | None
    ) = None
    """The type of its column."""
    references: _Text | Literal[False] | None = None
    """The entity whose records it names, `User.email` for an e-mail address; `false` where it names none."""


class EntityOverride(_Part):
    """What is to become of an entity, whatever would be inferred."""

    table: _Identifier | None = None
    """The name of its table."""
    first: Annotated[str, AfterValidator(_month)] | Literal[False] | None = None
    """The first month that records are migrated for, by which the table is partitioned; `false` where it is not."""
    leave_out: bool = False
    """Whether it gets no table; its records are kept in `migration.unmapped`."""
    fields: Mapping[str, FieldOverride] = Field(default_factory=dict[str, FieldOverride])
    """By field, as Base44 spells it."""


class AppPart(_Part):
    """What holds for the whole app."""

    name: _Text | None = None
    """What it is called; by default as its folder."""
    entities: _Text | None = None
    """Folder of the entity schemas, from the app folder."""
    export: _Text | None = None
    """Folder of exports, from the app folder."""
    source: _Text | None = None
    """Folder of the app's own source, from the app folder."""
    example: Literal["blog"] | None = None
    """The bundled example that the folder is a copy of."""
    strict: bool = False
    """Whether records that break what their schema declares are refused."""
    open: bool = False
    """Whether the group roles `b44_readwrite` and `b44_readonly` get the tables."""


class AppFile(_Part):
    """All that may stand in `b44.toml`."""

    app: AppPart = Field(default_factory=AppPart)
    entities: Mapping[str, EntityOverride] = Field(default_factory=dict[str, EntityOverride])
    """By entity, as Base44 spells it."""


@dataclass(frozen=True)
class AppFolder:
    """An app folder.

    Attributes:
        path: Absolute.
        file: What its `b44.toml` says.
    """

    path: Path
    file: AppFile

    @property
    def name(self) -> str:
        """What the app is called."""
        return self.file.app.name or self.path.name

    @property
    def sql_dir(self) -> Path:
        """Its SQL files."""
        return self.path / "sql"

    @property
    def export_dir(self) -> Path | None:
        """Its folder of exports, absolute; None where the file names none."""
        return place_of(self.path, self.file.app.export)

    @property
    def entities_dir(self) -> Path | None:
        """Its folder of entity schemas, absolute; None where the file names none."""
        return place_of(self.path, self.file.app.entities)


def place_of(folder: Path, written: str | None) -> Path | None:
    """A path of `b44.toml` as an absolute one, without `..`: the folder need not be there yet.

    Args:
        folder: Of the app, absolute.
        written: As the file has it; None gives None.
    """
    return None if written is None else Path(os.path.normpath(folder / Path(written).expanduser()))


def find_app_folder(directory: Path, given: Path | None = None) -> AppFolder | None:
    """Returns the app folder that a command works on: the given one, else the nearest of `directory` and those above it.

    Args:
        directory: Where the command runs, absolute.
        given: The folder of `--app`; from `directory`, where it is relative.

    Raises:
        SettingsError: The given folder is no app folder, or a `b44.toml` cannot be used.
    """
    if given is not None:
        folder = directory / given.expanduser()
        if not (folder / APP_FILE).is_file():
            missing = f"has no {APP_FILE}" if folder.is_dir() else "is not there"
            raise SettingsError(f"{folder} is no app folder: it {missing}; b44 init makes one")
        return AppFolder(folder, read_app_file(folder / APP_FILE))
    for folder in (directory, *directory.parents):
        if (folder / APP_FILE).is_file():
            return AppFolder(folder, read_app_file(folder / APP_FILE))
    return None


def read_app_file(path: Path) -> AppFile:
    """Reads `b44.toml`.

    Raises:
        SettingsError: It is no TOML, or has an unknown key, a wrong value, or what may be a secret; names file and line.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        # As tomllib opens a file: with the line ends of any system.
        found = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        said, at = str(error), re.search(r" \(at line (\d+), column \d+\)", str(error))
        place = f"{path}:{at[1]}" if at else f"{path}:{len(text.splitlines()) or 1}"
        raise SettingsError(f"{place}: no TOML: {said.partition(' (at ')[0]}") from None
    if secret := _secret_in(found):
        raise SettingsError(
            f"{path}:{_line(text, secret)}: {_written(secret)} holds a password, and {APP_FILE} is no place for one:"
            " put it into .env or the environment"
        )
    try:
        return AppFile.model_validate(found)
    except ValidationError as error:
        raise SettingsError(_said(path, text, found, error)) from None


def _said(path: Path, text: str, found: Mapping[str, Any], error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    problems = error.errors(include_url=False)
    # A union gives a line for each of its members; the key is the same.
    first = problems[0]
    where: list[str] = []
    value: Any = found
    for part in first["loc"]:
        if not isinstance(value, Mapping) or part not in value:
            break
        where.append(str(part))
        value = value[part]
    place = f"{path}:{_line(text, where)}"
    if first["type"] == "extra_forbidden":
        known = ", ".join(_keys_of(where[:-1]))
        said = f"{place}: unknown key {_written(where)}; there are {known}"
        # A setting, which may be a secret.
        if re.match(r"(?i)b44_|dagster_|.*(url|key|password|secret|token)$", where[-1]):
            said += "; settings stand in .env or the environment"
        return said
    if where and where[-1] in ("references", "first"):
        wanted = "the name of an entity" if where[-1] == "references" else "a month such as 2020-01"
        return f"{place}: {_written(where)} must be {wanted}, or false"
    if first["type"] in ("model_type", "dict_type", "mapping_type"):
        return f"{place}: {_written(where)} must be a table of keys"
    wanted = str(first.get("ctx", {}).get("error", "")) or first["msg"].partition("should be ")[2] or first["msg"]
    return f"{place}: {_written(where)} must be {wanted}"


def _keys_of(where: Sequence[str]) -> list[str]:
    """The keys that may stand in a part of the file."""
    model: type[BaseModel] = AppFile
    if where:
        model = AppPart if where[0] == "app" else FieldOverride if len(where) > 2 else EntityOverride
    return list(model.model_fields)


def _written(where: Sequence[str]) -> str:
    return ".".join(part if re.fullmatch(r"[\w-]+", part) else f'"{part}"' for part in where) or "the file"


def _secret_in(value: Any, where: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Where a URL with a password stands; empty where none does."""
    if isinstance(value, str):
        return where if _SECRET.search(value) else ()
    inner: Sequence[Any] = list(value.items()) if isinstance(value, Mapping) else []
    if isinstance(value, list):
        inner = [(None, each) for each in value]
    for key, each in inner:
        if key is not None and _SECRET.search(key):
            return where or ("a key",)
        if found := _secret_in(each, where if key is None else (*where, key)):
            return found
    return ()


def _line(text: str, where: Sequence[str]) -> int:
    """The line by which a key is there: tomllib does not say, so the file is read up to each line until it is."""
    lines = text.splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        try:
            value: Any = tomllib.loads("".join(lines[:number]).replace("\r\n", "\n"))
        except tomllib.TOMLDecodeError:
            continue
        for part in where:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return number
    return 1
