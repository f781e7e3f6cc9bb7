"""What becomes of the files of a folder that are generated again: what was edited by hand is kept, and nothing is half written."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.scaffold.files import STATE_FILE, Action, Changes, FolderError, apply_changes, plan_changes

Texts = dict[str, str]


def generate(folder: Path, texts: Texts) -> Changes:
    """As one run does."""
    changes = plan_changes(folder, {PurePosixPath(name): text for name, text in texts.items()})
    apply_changes(folder, changes)
    return changes


def actions(changes: Changes) -> dict[str, Action]:
    return {str(change.path): change.action for change in changes.all}


def files(folder: Path) -> Texts:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != STATE_FILE
    }


def test_files_are_written_and_then_unchanged(tmp_path: Path) -> None:
    texts = {"a": "1\n", "sql/tables/b.sql": "2\n"}

    assert set(actions(generate(tmp_path / "new", texts)).values()) == {Action.WRITTEN}
    state = (tmp_path / "new" / STATE_FILE).stat().st_mtime_ns
    again = generate(tmp_path / "new", texts)

    assert set(actions(again).values()) == {Action.UNCHANGED}
    assert not again.any
    assert files(tmp_path / "new") == texts
    assert (tmp_path / "new" / STATE_FILE).stat().st_mtime_ns == state


def test_an_edited_file_is_kept_as_long_as_nothing_else_is_generated(tmp_path: Path) -> None:
    generate(tmp_path, {"a": "1\n"})
    (tmp_path / "a").write_text("mine\n")

    changes = generate(tmp_path, {"a": "1\n"})

    assert actions(changes) == {"a": Action.KEPT}
    assert not changes.any
    assert files(tmp_path) == {"a": "mine\n"}


def test_a_file_that_is_not_edited_follows_what_is_generated(tmp_path: Path) -> None:
    generate(tmp_path, {"a": "1\n2\n"})
    [change] = generate(tmp_path, {"a": "1\n3\n"}).all

    assert change.action is Action.UPDATED
    assert change.diff.splitlines()[2:] == ["@@ -1,2 +1,2 @@", " 1", "-2", "+3"]
    assert files(tmp_path) == {"a": "1\n3\n"}


def test_where_both_have_changed_the_edited_one_is_kept_and_the_other_stands_beside_it(tmp_path: Path) -> None:
    generate(tmp_path, {"a": "1\n"})
    (tmp_path / "a").write_text("mine\n")
    [change] = generate(tmp_path, {"a": "2\n"}).all

    assert (change.action, files(tmp_path)) == (Action.DIFFERS, {"a": "mine\n", "a.new": "2\n"})
    assert change.diff.splitlines()[:2] == ["--- a", "+++ a.new"]
    assert change.diff.splitlines()[3:] == ["-mine", "+2"]
    # Told once: the next time it is known.
    assert actions(generate(tmp_path, {"a": "2\n"})) == {"a": Action.KEPT}
    # Taken over: what stood beside it goes.
    (tmp_path / "a").write_text("2\n")
    assert actions(generate(tmp_path, {"a": "2\n"})) == {"a": Action.UNCHANGED}
    assert files(tmp_path) == {"a": "2\n"}


def test_a_file_of_somebody_else_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("theirs\n")

    assert actions(generate(tmp_path, {"a": "1\n"})) == {"a": Action.DIFFERS}
    assert files(tmp_path)["a"] == "theirs\n"


def test_a_file_that_was_deleted_stays_away(tmp_path: Path) -> None:
    generate(tmp_path, {"a": "1\n", "b": "1\n"})
    (tmp_path / "a").unlink()

    assert actions(generate(tmp_path, {"a": "2\n", "b": "1\n"}))["a"] is Action.DELETED
    assert files(tmp_path) == {"b": "1\n"}


def test_what_is_generated_no_more_goes_unless_it_was_edited(tmp_path: Path) -> None:
    generate(tmp_path, {"sql/one/a": "1\n", "sql/b": "1\n", "c": "1\n"})
    (tmp_path / "sql" / "b").write_text("mine\n")

    changes = generate(tmp_path, {"c": "1\n"})

    assert actions(changes) == {"sql/one/a": Action.REMOVED, "sql/b": Action.OBSOLETE, "c": Action.UNCHANGED}
    assert files(tmp_path) == {"sql/b": "mine\n", "c": "1\n"}
    assert not (tmp_path / "sql" / "one").exists()
    # It is the user's now.
    assert actions(generate(tmp_path, {"c": "1\n"})) == {"c": Action.UNCHANGED}


def test_other_line_ends_are_no_edit(tmp_path: Path) -> None:
    generate(tmp_path, {"a": "1\n2\n"})
    (tmp_path / "a").write_bytes(b"1\r\n2\r\n")

    assert actions(generate(tmp_path, {"a": "1\n2\n"})) == {"a": Action.UNCHANGED}
    assert actions(generate(tmp_path, {"a": "3\n"})) == {"a": Action.UPDATED}


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    plan_changes(tmp_path / "new", {PurePosixPath("a"): "1"})
    assert not (tmp_path / "new").exists()


TEXTS = st.dictionaries(st.sampled_from(["a", "b", "x/a", "x/y/c"]), st.sampled_from(["", "1\n", "2\n"]))


@given(first=TEXTS, second=TEXTS, edited=st.sets(st.sampled_from(["a", "b", "x/a", "x/y/c"])), stop=st.integers(0, 12))
def test_whatever_ends_it_in_the_middle_the_next_time_completes_it_and_no_edit_is_lost(
    tmp_path_factory: pytest.TempPathFactory, first: Texts, second: Texts, edited: set[str], stop: int
) -> None:
    folder = tmp_path_factory.mktemp("app")
    generate(folder, first)
    for name in edited & first.keys():
        (folder / name).write_text("mine\n")
    replace, done = Path.replace, 0

    def replacing(path: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done > stop:
            raise KeyboardInterrupt
        return replace(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replacing)
        try:
            generate(folder, second)
        except KeyboardInterrupt:
            assert stop <= len(second) + 1
    generate(folder, second)

    found = files(folder)
    for name, text in second.items():
        if name in edited & first.keys():
            assert found[name] == "mine\n"
            assert first[name] == text or found[f"{name}.new"] == text
        else:
            assert found[name] == text
    assert {name for name in found if name.endswith(".tmp")} == set()
    assert not generate(folder, second).any


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "files": []}', "\ufffd"])
def test_a_state_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(FolderError, match=r"\.b44-init\.json: cannot be read"):
        plan_changes(tmp_path, {})


def test_the_state_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text(json.dumps({"format": 2, "files": {}}))
    with pytest.raises(FolderError, match="another version"):
        plan_changes(tmp_path, {})


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "sql").write_text("a file where a folder is to be")
    with pytest.raises(FolderError, match="sql"):
        generate(tmp_path, {"sql/a": "1"})
