"""Finding the files of an export in a folder, and saying what is made of each other file there."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from b44_assets.errors import ExportError
from b44_assets.exports.model import ExportFile
from b44_assets.exports.names import loosely, matched
from b44_assets.wording import some_of

# The name may be qualified by a schema; the entity's own name begins with a capital, so that notes such as
# `truth.json` or `package.json` beside the export are not taken for entities. A name that ends in `_export` says what it is.
_NAME: Final = re.compile(r"(?P<entity>(?:[^\W\d]\w*\.)*(?P<own>[^\W\d_]\w*?))(?:_export)?", re.IGNORECASE)
_ENDING: Final = re.compile(r"\.(?:csv|tsv|jsonl?|ndjson)\Z", re.IGNORECASE)
# What browsers and file managers add to the name of a second download, or of a copy.
_COPY: Final = re.compile(
    r"(?:\s*\(\d+\)|[\s-]+\d+|[\s_-]+(?:copy|copie|kopie|copia|cópia)(?:[\s_]*\(?\d+\)?)?)+\Z", re.IGNORECASE
)
_COPY_OF: Final = re.compile(r"\A(?:copy of|copie de|kopie von|copia de)\s+", re.IGNORECASE)
_EXPORT: Final = re.compile(r"[\s_-]*export\Z", re.IGNORECASE)
_REMEDIES: Final = (
    (re.compile(r"\.gz\Z", re.IGNORECASE), "is compressed; unpack it with gunzip"),
    (re.compile(r"\.(?:zip|7z|rar)\Z", re.IGNORECASE), "is an archive; unpack it, such as with unzip"),
    (re.compile(r"\.(?:tar|tgz|tbz2?|txz)\Z", re.IGNORECASE), "is an archive; unpack it with tar -xf"),
    (re.compile(r"\.(?:bz2|xz|zst|lz4|br)\Z", re.IGNORECASE), "is compressed; unpack it"),
    (re.compile(r"\.(?:xlsx?|xlsm|ods|numbers)\Z", re.IGNORECASE), "is a spreadsheet; save it as CSV"),
    (re.compile(r"\.(?:crdownload|part|partial|download|tmp)\Z", re.IGNORECASE), "is an unfinished download"),
)
_MOST_NAMED: Final = 10


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        files: One per entity, sorted by entity.
        read_as: Of each file whose name is not quite the entity's, a line that says as what it is read.
        passed_over: Of each file that looks like one of the export's and is not read, a line with the remedy.
        others: Names of everything else.
    """

    files: tuple[ExportFile, ...]
    read_as: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines on what needs nothing to be done."""
        if not self.others:
            return self.read_as
        return (*self.read_as, f"beside the export, and not read: {some_of(self.others, _MOST_NAMED)}")


def discover(directory: Path, known: Collection[str] = ()) -> tuple[ExportFile, ...]:
    """Find the export's files; as `survey`, without what is said of the other ones."""
    return survey(directory, known).files


def survey(directory: Path, known: Collection[str] = ()) -> Survey:
    """Look through a folder: `<Entity>_export.csv`, `<Entity>.csv`, `.tsv`, `.json`, `.jsonl`, `.ndjson` are an export's.

    A name that differs from a known entity's in case, blanks, `-` and `_` alone, or by the mark of a copy as in
    `Post_export (1).csv`, is that entity's.

    Args:
        directory: The export folder; only its own files count, folders in it are not entered.
        known: Entities that have a table.

    Raises:
        ExportError: The folder is missing, is none, cannot be read, or holds no export file; there are two for one
            entity; or what is named as one is a folder, or a link to nothing.
    """
    try:
        paths = sorted(directory.iterdir(), key=lambda path: path.name)
    except FileNotFoundError:
        raise ExportError(
            f"{directory}: there is no such export folder; name the one with the exported files"
        ) from None
    except NotADirectoryError:
        for ending, reason in _REMEDIES:
            if ending.search(directory.name):
                told = reason.replace(";", ", not an export folder;", 1)
                raise ExportError(f"{directory}: {told}, and name the folder") from None
        raise ExportError(f"{directory}: is a file, not an export folder; name the folder that it is in") from None
    except OSError as error:
        raise ExportError(f"{directory}: the export folder cannot be read: {error.strerror}") from error
    found: dict[str, Path] = {}
    doubled: dict[str, str] = {}
    read_as: list[str] = []
    passed_over: list[str] = []
    others: list[str] = []
    by_form = {loosely(entity): entity for entity in known}
    for path in paths:
        name = path.name
        entity = _entity(name, known, by_form)
        if entity is None:
            reason = _why_not(name, by_form)
            if reason is not None:
                passed_over.append(f"{path} is not read: {reason}")
            else:
                others.append(name)
            continue
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "no file"
            raise ExportError(
                f"{path}: is named as the export of {entity}, but is {kind}; remove it, or put the file there"
            )
        if (other := found.setdefault(entity, path)) != path:
            doubled.setdefault(entity, f"{other.name} and {name}")
        elif not _spelt_out(_ENDING.sub("", name), entity, known):
            read_as.append(f"{path} is read as the export of {entity}")
    if doubled:
        (entity, names), *more = doubled.items()
        likewise = f"; likewise those of {some_of([name for name, _ in more], _MOST_NAMED)}" if more else ""
        raise ExportError(f"{directory}: {names} are both exports of {entity}; keep one{likewise}")
    if not found:
        hints = "".join(f"; {line}" for line in passed_over[:3])
        if (
            inner := next((path for path in paths if path.is_dir() and _holds_export(path, known, by_form)), None)
        ) is not None:
            hints += f"; {inner} has some: name that folder"
        raise ExportError(
            f"{directory}: no export file here (expected such as Post_export.csv, Post.json, Post.jsonl){hints}"
        )
    for entity, path in found.items():
        if entity not in known and (meant := _singular(loosely(entity), by_form)) is not None and meant not in found:
            read_as.append(
                f"{path} is read as an entity {entity}; if it is the export of {meant}, name it {meant}_export"
            )
    files = tuple(ExportFile(entity, found[entity]) for entity in sorted(found))
    return Survey(files, tuple(read_as), tuple(passed_over), tuple(others))


def _holds_export(folder: Path, known: Collection[str], by_form: Mapping[str, str]) -> bool:
    try:
        return any(_entity(path.name, known, by_form) is not None for path in folder.iterdir())
    except OSError:
        return False


def _spelt_out(stem: str, entity: str, known: Collection[str]) -> bool:
    """Whether a file's name is the entity's; where its script has no capitals, that of a known one."""
    return _exact(stem) == entity or (entity in known and stem in (entity, f"{entity}_export"))


def _exact(stem: str) -> str | None:
    """The entity that a file's name spells out."""
    match = _NAME.fullmatch(stem)
    return match["entity"] if match is not None and match["own"][0].isupper() else None


def _entity(name: str, known: Collection[str], by_form: Mapping[str, str]) -> str | None:
    """The entity that a file is of; None where its name tells of none."""
    if name.startswith(".") or not _ENDING.search(name):
        return None
    stem = _ENDING.sub("", name)
    plain = _COPY.sub("", _COPY_OF.sub("", stem))
    candidates = (_exact(stem), _exact(plain))
    for entity in candidates:
        if entity in known:
            return entity
    # A name of several parts with a number at its end, such as `Post_2`, is no copy.
    for text in (stem, plain):
        if (entity := matched(_EXPORT.sub("", text), known)) is not None:
            return entity
    return candidates[0] or candidates[1] or _in_lower_case(plain, by_form)


def _in_lower_case(stem: str, by_form: Mapping[str, str]) -> str | None:
    """The entity of a file named as `order_export`; None where it may be the plural of a known one."""
    match = _NAME.fullmatch(stem)
    if match is None or not stem.lower().endswith("_export"):
        return None
    entity = match["entity"]
    return entity if _singular(loosely(entity), by_form) is None else None


def _why_not(name: str, by_form: Mapping[str, str]) -> str | None:
    """Why a file that looks like one of an export's is not read; None where it does not look so."""
    if name.startswith("."):
        return None
    for ending, reason in _REMEDIES:
        if ending.search(name):
            return reason
    if _ENDING.search(name):
        form = loosely(_EXPORT.sub("", _COPY.sub("", _ENDING.sub("", name))))
        if (meant := _singular(form, by_form)) is not None:
            return f"if it is the export of {meant}, name it {meant}_export{name[name.rindex('.') :]}"
        if not name.lower().endswith(".json"):
            return "its name is no entity's; name it as Post_export.csv, Post.json or Post.jsonl"
    if "_export." in name.lower() or loosely(name.split(".")[0]) in by_form:
        return "its name does not end in .csv, .json or .jsonl"
    return None


def _singular(form: str, by_form: Mapping[str, str]) -> str | None:
    for ending, singular in (("ies", "y"), ("es", ""), ("s", "")):
        if form.endswith(ending) and (meant := by_form.get(form.removesuffix(ending) + singular)) is not None:
            return meant
    return None
