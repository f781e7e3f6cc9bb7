"""Write the generated files of a folder, keeping what was edited by hand.

`.b44-init.json` has a digest of each file as it was generated last; a file that differs from it was edited. Nothing here knows what
the files are about.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath, PurePosixPath

from b44_assets.atomic_files import write_atomically
from b44_assets.errors import B44Error, why

STATE_FILE = ".b44-init.json"
_FORMAT = 1
_BESIDE = ".new"


class FolderError(B44Error):
    """The folder cannot be used, or written."""

    exit_status = 2


class Action(StrEnum):
    """What becomes of a file; the value is what is printed."""

    WRITTEN = "written"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    """Edited by hand, and nothing else was generated since."""
    DIFFERS = "kept, differs"
    """Edited by hand, and what is generated has changed: that stands beside it."""
    DELETED = "stays deleted"
    """Deleted by hand."""
    REMOVED = "removed"
    """No longer generated, and not edited."""
    OBSOLETE = "kept, no longer generated"


@dataclass(frozen=True)
class Change:
    """What becomes of one file.

    Attributes:
        path: From the folder.
        action: What becomes of it.
        before: Its text, where there is one.
        after: The text that is generated, where there is one.
    """

    path: PurePosixPath
    action: Action
    before: str | None
    after: str | None

    @property
    def diff(self) -> str:
        """A unified diff from what is there to what is generated; empty where it is new, gone or the same."""
        if self.action not in (Action.UPDATED, Action.DIFFERS):
            return ""
        lines = difflib.unified_diff(
            (self.before or "").splitlines(),
            (self.after or "").splitlines(),
            str(self.path),
            f"{self.path}{_BESIDE if self.action is Action.DIFFERS else ''}",
            lineterm="",
        )
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Changes:
    """What becomes of the files of a folder, in the order of their names."""

    all: tuple[Change, ...]

    def of(self, *actions: Action) -> tuple[Change, ...]:
        """Those of some actions."""
        return tuple(change for change in self.all if change.action in actions)

    @property
    def any(self) -> bool:
        """Whether anything is written or removed."""
        return bool(self.of(Action.WRITTEN, Action.UPDATED, Action.DIFFERS, Action.REMOVED))


def plan_changes(folder: Path, files: Mapping[PurePath, str]) -> Changes:
    """Compares what is generated with what is there.

    Args:
        folder: May be missing.
        files: Text by path from the folder.

    Raises:
        FolderError: A file cannot be read, or the state file is none of ours.
    """
    recorded = _recorded(folder)
    generated = {PurePosixPath(path): text for path, text in files.items()}
    changes: list[Change] = []
    for path in sorted({*generated, *recorded}):
        before, after, digest = _text(folder / path), generated.get(path), recorded.get(path)
        changes.append(Change(path, _action(before, after, digest), before, after))
    return Changes(tuple(change for change in changes if change.before is not None or change.after is not None))


def _action(before: str | None, after: str | None, recorded: str | None) -> Action:
    if after is None:
        return Action.REMOVED if before is not None and _digest(before) == recorded else Action.OBSOLETE
    if before is None:
        return Action.WRITTEN if recorded is None else Action.DELETED
    if before == after:
        return Action.UNCHANGED
    if recorded is not None and _digest(before) == recorded:
        return Action.UPDATED
    return Action.KEPT if _digest(after) == recorded else Action.DIFFERS


def apply_changes(folder: Path, changes: Changes, first: Iterable[PurePath] = ()) -> None:
    """Writes what is new, and removes what was generated once and is no more; each file is whole at any moment.

    What was generated is recorded last, so that whatever ends this in the middle, the next time completes it.

    Args:
        folder: Is made, if need be.
        changes: Of `plan_changes`.
        first: Files that are written before all others.

    Raises:
        FolderError: A file cannot be written.
    """
    order = {PurePosixPath(path): number for number, path in enumerate(first)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for change in sorted(changes.all, key=lambda each: order.get(each.path, len(order))):
            place = folder / change.path
            beside = place.with_name(place.name + _BESIDE)
            if change.action in (Action.WRITTEN, Action.UPDATED):
                _write(place, change.after or "")
            elif change.action is Action.DIFFERS:
                _write(beside, change.after or "")
            elif change.action is Action.REMOVED:
                place.unlink(missing_ok=True)
                _remove_empty(place.parent, folder)
            if change.action in (Action.UNCHANGED, Action.UPDATED, Action.REMOVED):
                beside.unlink(missing_ok=True)
        record = {str(change.path): _digest(change.after) for change in changes.all if change.after is not None}
        text = json.dumps({"format": _FORMAT, "files": record}, indent=1) + "\n"
        if _text(folder / STATE_FILE) != text:
            _write(folder / STATE_FILE, text)
    except OSError as error:
        raise FolderError(f"{error.filename or folder}: cannot be written: {why(error, folder)}") from error


def _recorded(folder: Path) -> dict[PurePosixPath, str]:
    text = _text(folder / STATE_FILE)
    if text is None:
        return {}
    try:
        found = json.loads(text)
        if found["format"] != _FORMAT:
            raise FolderError(f"{folder / STATE_FILE}: written by another version of b44")
        return {PurePosixPath(path): str(digest) for path, digest in found["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FolderError(
            f"{folder / STATE_FILE}: cannot be read ({type(error).__name__}); without it every file that differs counts as edited:"
            " remove it, and run the command again"
        ) from None


def _text(path: Path) -> str | None:
    """The text of a file, None where there is none; bytes that are no UTF-8 only have to differ from what is generated."""
    try:
        # Whatever line ends a version control gives it.
        return path.read_bytes().decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FolderError(f"{path}: cannot be read: {why(error)}") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode("utf-8"), mode=0o644)


def _remove_empty(folder: Path, top: Path) -> None:
    """Removes a folder, and those above it, as long as nothing is in them."""
    while folder != top and folder.is_relative_to(top) and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
