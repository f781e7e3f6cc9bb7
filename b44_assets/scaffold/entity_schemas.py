"""Reads the entity schemas of an app, `base44/entities/*.jsonc` or older `src/entities/*.json`, into entities with their fields.

What cannot be read is a notice, and the rest goes on; so is what is understood but for a part that has no effect here. Where an
entity is declared more than once, the file under `base44/` is the newer one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import json5

from b44_assets.errors import B44Error
from b44_assets.exports.model import BUILT_IN_FIELDS
from b44_assets.exports.names import caseless
from b44_assets.scaffold.field_schemas import read_fields
from b44_assets.scaffold.model import ABSENT, Entity, Field, Notice, Origin, Reading
from b44_assets.wording import plural

LARGEST: Final = 1 << 20
"""Bytes of a schema's file; the largest real one has 40,000."""

_ENDINGS: Final = (".jsonc", ".json5", ".json", "")
"""Of a schema's file; of several for one entity, the first."""
_STEM: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_CONFIGS: Final = ("config.jsonc", "config.json")
_LONGEST_NUMBER: Final = 1_000
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_UNDERSTOOD: Final = frozenset(
    {"name", "type", "properties", "required", "rls", "indexes", "description", "title"}
    | {"$schema", "$id", "id", "$comment", "$defs", "definitions", "additionalProperties", "version"}
)
_OTHER_RULES: Final = ("security", "permissions", "policies", "access", "row_level_security")


class _Unreadable(Exception):
    """A file is not read; the argument says why."""


@dataclass
class _Found:
    """Notices of one reading, and what was found by the name of an entity in lower case."""

    root: Path
    notices: list[Notice] = field(default_factory=list)
    entities: dict[str, Entity] = field(default_factory=dict)

    def tell(self, path: Path | None, text: str) -> None:
        self.notices.append(Notice(path, text))


def read_schemas(path: Path) -> Reading:
    """Read all entity schemas of an app.

    Args:
        path: The app's repository, its `base44/`, or the folder of the schemas itself.

    Raises:
        B44Error: There is no such folder, or no schema in it.
    """
    if not path.exists():
        raise B44Error(f"{path}: there is no such folder of entity schemas")
    if not path.is_dir():
        raise B44Error(f"{path}: is a file; give the folder of the entity schemas, such as base44/entities")
    found = _Found(path.resolve())
    folders = list(_folders(path, found))
    for folder in folders:
        _read_folder(folder, found)
    if not found.entities:
        looked = ", ".join(str(folder) for folder in folders) or str(path)
        hints = "".join(f"; {notice.path}: {notice.text}" for notice in found.notices[:3])
        raise B44Error(
            f"{path}: no entity schema found (looked in {looked}); expected such as base44/entities/Task.jsonc{hints}"
        )
    entities = sorted(found.entities.values(), key=lambda entity: entity.name)
    return Reading(tuple(entities), tuple(found.notices), folders[0])


def parse(text: str) -> tuple[Any, tuple[str, ...]]:
    """Decode JSON, or JSON with comments and trailing commas, without losing a digit.

    Returns:
        The value, and the keys that stand more than once in an object, of which the last counts.

    Raises:
        ValueError: It is neither.
    """
    doubled: list[str] = []

    def object_of(given: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        pairs = list(given)
        value = dict(pairs)
        if len(value) < len(pairs):
            keys = [key for key, _ in pairs]
            doubled.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return value

    try:
        try:
            value = json.loads(
                text, object_pairs_hook=object_of, parse_float=_decimal, parse_int=_integer, parse_constant=_no_constant
            )
        except json.JSONDecodeError:
            doubled.clear()
            value = json5.loads(
                text, object_pairs_hook=object_of, parse_float=_decimal, parse_int=_integer, parse_constant=_no_constant
            )
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return _whole(value) if _SURROGATE.search(text) else value, tuple(doubled)


def _whole(value: Any) -> Any:
    """A value with the halves of characters, as json5 leaves them, put together; one alone is none, and is shown as such."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return {_whole(key): _whole(one) for key, one in value.items()} if isinstance(value, dict) else value


def _decimal(text: str) -> Decimal:
    return Decimal(_short(text))


def _integer(text: str, base: int = 10) -> int:
    return int(_short(text), base)


def _short(text: str) -> str:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"holds a number of {len(text):,} digits")
    return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _folders(path: Path, found: _Found) -> Iterator[Path]:
    """The folders that hold schemas, those of `base44/` first; the path itself where it holds none of them."""
    candidates: list[Path] = []
    for base in (path / "base44", path):
        named = _entities_dir(base, found) if base.is_dir() else None
        if named is not None:
            candidates.append(base / named)
        elif base != path or (path.name == "base44"):
            candidates.append(base / "entities")
    candidates += [path / "src" / "entities", path / "entities"]
    seen: set[Path] = set()
    for folder in candidates:
        if folder.is_dir() and (real := folder.resolve()) not in seen:
            seen.add(real)
            yield folder
    if not seen:
        yield path


def _entities_dir(base: Path, found: _Found) -> str | None:
    """What `config.jsonc` names as the folder of the schemas; None where it names none."""
    for name in _CONFIGS:
        path = base / name
        if not path.is_file():
            continue
        try:
            config, _ = parse(_text(path, found.root))
        except (_Unreadable, ValueError) as error:
            found.tell(
                path, f"cannot be read, and base44/entities is taken for the folder of the schemas: {_line(error)}"
            )
            return None
        named = config.get("entitiesDir") if isinstance(config, dict) else None
        if named is None:
            return None
        if not isinstance(named, str) or not (base / named).is_dir():
            found.tell(path, f"entitiesDir {named!r} is no folder")
            return None
        return named
    return None


def _read_folder(folder: Path, found: _Found) -> None:
    """Read the files of a folder; an entity that another folder has declared stays as it is there."""
    own: dict[str, Entity] = {}
    for path in _files(folder, found):
        try:
            entity = _read_file(path, found)
        except _Unreadable as error:
            found.tell(path, f"is not read: {error}")
            continue
        if entity is None:
            continue
        key = caseless(entity.name)
        if (other := own.get(key)) is None:
            own[key] = entity
            continue
        # The file that has the entity's name, or else the one that came first.
        keep, drop = (entity, other) if _is_named(entity) and not _is_named(other) else (other, entity)
        own[key] = keep
        _tell_doubled(keep, drop, found)
    for key, entity in own.items():
        if (other := found.entities.get(key)) is not None:
            _tell_doubled(other, entity, found)
        else:
            found.entities[key] = entity


def _is_named(entity: Entity) -> bool:
    return entity.path is not None and _stem(entity.path) == entity.name


def _stem(path: Path) -> str:
    for ending in _ENDINGS:
        if ending and path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def _ending(path: Path) -> str | None:
    """The ending of a file that may be a schema; None for another one's."""
    for ending in _ENDINGS:
        if ending and path.name.lower().endswith(ending):
            return ending
    return "" if _STEM.fullmatch(path.name) and "." not in path.name else None


def _files(folder: Path, found: _Found) -> list[Path]:
    """The files that may be schemas, those whose ending tells so first."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise B44Error(f"{folder}: cannot be read: {error.strerror}") from error
    files: list[tuple[int, str, Path]] = []
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            inner = sum(one.suffix.lower() in (".json", ".jsonc") for one in path.iterdir())
            if inner:
                files_of_json = f"{inner} {plural(inner, 'file')} of JSON"
                found.tell(path, f"is a folder with {files_of_json}, and is not read: schemas stand in one folder")
        elif (ending := _ending(path)) is not None:
            files.append((_ENDINGS.index(ending), path.name, path))
    return [path for _, _, path in sorted(files)]


def _text(path: Path, root: Path) -> str:
    """The text of a file.

    Raises:
        _Unreadable: It is a link to elsewhere, too large, or no UTF-8.
    """
    try:
        if path.is_symlink() and not path.resolve(strict=True).is_relative_to(root):
            raise _Unreadable("it is a link to a file elsewhere")
        if not path.is_file():
            raise _Unreadable("it is no file")
        if (size := path.stat().st_size) > LARGEST:
            raise _Unreadable(f"it has {size:,} bytes, and a schema has {LARGEST:,} at most")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Unreadable("it is not UTF-8") from None
    except OSError as error:
        raise _Unreadable(error.strerror or str(error)) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).replace("<string>:", "line ").split())[:200]


def _read_file(path: Path, found: _Found) -> Entity | None:
    """One file's entity; None for a file that is none of an entity, of which nobody need be told."""
    text = _text(path, found.root)
    if not path.suffix and not text.lstrip().startswith(("{", "//", "/*")):
        return None  # such as LICENSE
    try:
        schema, doubled = parse(text)
    except ValueError as error:
        raise _Unreadable(f"it is no JSON: {_line(error)}") from None
    if not isinstance(schema, dict):
        raise _Unreadable("it is no object of JSON")
    if not schema.keys() & {"properties", "rls", "required"} and schema.get("type") != "object":
        raise _Unreadable("it has no properties, and so is no schema of an entity")
    if doubled:
        found.tell(path, f"the last of the keys that stand there more than once counts: {', '.join(doubled)}")
    return _entity(path, schema, found)


def _entity(path: Path, schema: dict[str, Any], found: _Found) -> Entity:
    name = schema.get("name")
    if not isinstance(name, str) or not name.strip():
        name = _stem(path)
        if schema.get("type") is None:
            what = "has neither name nor type, as where an app adds fields to an entity of Base44's or of a plugin"
            found.tell(path, f"{what}: read as {name}, with the fields that stand there")
    name = name.strip()
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        found.tell(path, "its properties are no object; it is read as an entity without fields of its own")
        properties = {}
    fields, lost = read_fields(properties, schema)
    for text in lost:
        found.tell(path, text)
    unknown = sorted(
        key for key in schema.keys() - _UNDERSTOOD - set(_OTHER_RULES) if isinstance(schema[key], dict | list)
    )
    if unknown:
        found.tell(path, f"not understood, and without effect here: {', '.join(unknown)}")
    description = schema.get("description") or schema.get("title")
    return Entity(
        name,
        Origin.SCHEMA,
        _required(path, fields, schema.get("required"), found),
        path,
        description.strip() if isinstance(description, str) else "",
        schema.get("rls", ABSENT),
        MappingProxyType({key: schema[key] for key in _OTHER_RULES if key in schema}),
        _indexes(path, fields, schema.get("indexes"), found),
    )


def _required(path: Path, fields: tuple[Field, ...], required: Any, found: _Found) -> tuple[Field, ...]:
    if required is None or isinstance(required, bool):
        return fields
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        found.tell(path, "required is no list of fields, and has no effect")
        return fields
    unknown = sorted(set(required) - {one.name for one in fields} - set(BUILT_IN_FIELDS))
    if unknown:
        found.tell(path, f"required names what is no field: {', '.join(unknown)}")
    return tuple(replace(one, required=True) if one.name in required else one for one in fields)


def _indexes(
    path: Path, fields: tuple[Field, ...], indexes: Any, found: _Found
) -> tuple[tuple[tuple[str, ...], bool], ...]:
    if indexes is None:
        return ()
    known = {one.name for one in fields} | set(BUILT_IN_FIELDS)
    read: list[tuple[tuple[str, ...], bool]] = []
    for index in indexes if isinstance(indexes, list) else [indexes]:
        given = index.get("fields", index.get("columns")) if isinstance(index, dict) else index
        if isinstance(given, dict):  # as MongoDB has them: field to direction
            given = list(given)
        names = [given] if isinstance(given, str) else given
        if (
            not isinstance(names, list)
            or not names
            or not all(isinstance(name, str) and name in known for name in names)
        ):
            found.tell(path, f"an index of what are no fields has no effect: {json.dumps(index, default=str)[:100]}")
            continue
        one = tuple(names), isinstance(index, dict) and index.get("unique") is True
        if one not in read:
            read.append(one)
    return tuple(read)


def _tell_doubled(keep: Entity, drop: Entity, found: _Found) -> None:
    """Say that an entity is declared twice, and what that makes a difference to."""
    differences = _differences(keep, drop)
    what = "; ".join(differences) if differences else "both say the same"
    found.tell(drop.path, f"left out, since {keep.path} declares {keep.name}, too: {what}")


def _differences(keep: Entity, drop: Entity) -> list[str]:
    kept = {one.name: one for one in keep.fields}
    dropped = {one.name: one for one in drop.fields}
    lines = (
        ("fields of that file alone", [name for name in kept if name not in dropped]),
        ("fields of this file alone", [name for name in dropped if name not in kept]),
        ("declared differently", [name for name in kept if name in dropped and kept[name] != dropped[name]]),
    )
    found = [f"{word}: {', '.join(names)}" for word, names in lines if names]
    if _rules(keep) != _rules(drop):
        found.append("the rules differ")
    if keep.indexes != drop.indexes:
        found.append("the indexes differ")
    return found


def _rules(entity: Entity) -> tuple[Any, Mapping[str, Any]]:
    return None if entity.rls is ABSENT else entity.rls, dict(entity.other_rules)
