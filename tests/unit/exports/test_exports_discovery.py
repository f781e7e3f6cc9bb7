"""Finding the files of an export in a folder."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from b44_assets.errors import ExportError
from b44_assets.exports import ExportFile, discover, survey
from b44_assets.exports.names import nearest

KNOWN = frozenset({"User", "Post", "Category", "Event", "AuditLog"})


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def test_every_form_of_name_is_found_sorted_by_entity(tmp_path: Path) -> None:
    fill(tmp_path, "User.jsonl", "Post_export.csv", "Category.csv", "Event.json")
    assert discover(tmp_path) == (
        ExportFile("Category", tmp_path / "Category.csv"),
        ExportFile("Event", tmp_path / "Event.json"),
        ExportFile("Post", tmp_path / "Post_export.csv"),
        ExportFile("User", tmp_path / "User.jsonl"),
    )


@pytest.mark.parametrize("name", ["Post_Export.CSV", "Post.JSON", "Post.JsonL", "Post_EXPORT.csv"])
def test_suffixes_may_be_in_any_case(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)
    assert [file.entity for file in discover(tmp_path)] == ["Post"]


@pytest.mark.parametrize(
    ("name", "entity"),
    [
        ("commerce.Order_export.csv", "commerce.Order"),
        ("commerce.Order.json", "commerce.Order"),
        ("User_Profile2.csv", "User_Profile2"),
        ("Évènement_export.csv", "Évènement"),
        ("Bank_export_export.csv", "Bank_export"),
    ],
)
def test_the_entity_is_spelt_as_in_the_name(tmp_path: Path, name: str, entity: str) -> None:
    fill(tmp_path, name)
    assert discover(tmp_path) == (ExportFile(entity, tmp_path / name),)


@pytest.mark.parametrize("name", ["order_export.csv", "order_export (1).csv", "order_Export.jsonl"])
def test_an_entity_in_lower_case_is_known_by_the_ending_of_its_name(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)
    found = survey(tmp_path, KNOWN)
    assert [file.entity for file in found.files] == ["order"]
    assert found.read_as == (f"{tmp_path / name} is read as the export of order",)


@pytest.mark.parametrize(
    "name",
    [
        "truth.json",
        "commerce.order.json",
        "README.md",
        ".Post_export.csv",
        ".csv",
        "notes",
    ],
)
def test_other_files_are_not_read_and_named_in_a_notice(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name, "Category.csv")
    found = survey(tmp_path, KNOWN)
    assert [file.entity for file in found.files] == ["Category"]
    assert (found.others, found.passed_over, found.read_as) == ((name,), (), ())
    assert found.notices == (f"beside the export, and not read: {name}",)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Post_export.csv.gz", "gunzip"),
        ("Post.jsonl.GZ", "gunzip"),
        ("base44-export.zip", "unzip"),
        ("export.tar.gz", "gunzip"),
        ("export.tgz", "tar -xf"),
        ("Post_export.csv.bz2", "unpack"),
        ("Post_export.xlsx", "save it as CSV"),
        ("Post_export.csv.crdownload", "unfinished"),
        ("Post_export.csv.bak", "does not end in"),
        ("Post", "does not end in"),
        ("AuditLog.txt", "does not end in"),
        ("posts.csv", "name it Post_export.csv"),
        ("posts_export.csv", "name it Post_export.csv"),
        ("orders.csv", "name it as Post_export.csv"),
        ("categories.json", "name it Category_export.json"),
        ("2Post.csv", "name it as Post_export.csv"),
        ("some data.jsonl", "name it as Post_export.csv"),
    ],
)
def test_what_looks_like_an_export_and_is_not_read_is_named_with_the_remedy(
    tmp_path: Path, name: str, remedy: str
) -> None:
    fill(tmp_path, name, "Event.csv")
    found = survey(tmp_path, KNOWN)
    assert [file.entity for file in found.files] == ["Event"]
    [line] = found.passed_over
    assert line.startswith(f"{tmp_path / name} is not read: ")
    assert remedy in line
    assert found.others == ()


@pytest.mark.parametrize(
    ("name", "entity"),
    [
        ("Post_export (1).csv", "Post"),
        ("Post_export(1).csv", "Post"),
        ("Post_export - Copy.csv", "Post"),
        ("Post_export - Copy (2).csv", "Post"),
        ("Post_export copy 2.csv", "Post"),
        ("Post_export 2.csv", "Post"),
        ("Copy of Post_export.csv", "Post"),
        ("Post (3).json", "Post"),
        ("Post-export.csv", "Post"),
        ("post_export.csv", "Post"),
        ("POST.CSV", "Post"),
        ("audit-log.jsonl", "AuditLog"),
        ("audit_log.csv", "AuditLog"),
        ("Audit Log_export (1).csv", "AuditLog"),
        ("Auditlog.ndjson", "AuditLog"),
        ("auditlog.tsv", "AuditLog"),
        ("Invoice (1).csv", "Invoice"),
    ],
)
def test_a_name_that_is_nearly_an_entity_s_is_read_as_it_and_said_so(tmp_path: Path, name: str, entity: str) -> None:
    fill(tmp_path, name, "User.csv")
    found = survey(tmp_path, KNOWN)
    assert ExportFile(entity, tmp_path / name) in found.files
    assert found.notices == (f"{tmp_path / name} is read as the export of {entity}",)
    assert found.passed_over == ()


@pytest.mark.parametrize("name", ["Post_export (1).csv", "post.csv", "Post_export - Copy.csv", "Post.ndjson"])
def test_a_second_file_of_an_entity_is_an_error_naming_both(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name, "Post_export.csv")
    with pytest.raises(ExportError, match="are both exports of Post; keep one") as caught:
        survey(tmp_path, KNOWN)
    assert name in str(caught.value) and "Post_export.csv" in str(caught.value)


def test_all_entities_with_a_second_file_are_named_at_once(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "Post.csv",
        "Post (1).csv",
        "User.csv",
        "User (1).csv",
        "Event.csv",
        "AuditLog.csv",
        "AuditLog (1).csv",
    )
    with pytest.raises(ExportError, match=r"keep one; likewise those of Post, User$"):
        survey(tmp_path, KNOWN)


@pytest.mark.parametrize("name", ["予約.json", "مريض_export.csv"])
def test_of_a_name_without_capitals_that_is_spelt_out_nothing_is_said(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)
    assert survey(tmp_path, {"予約", "مريض"}).read_as == ()


def test_a_name_near_to_two_entities_is_neither_s(tmp_path: Path) -> None:
    fill(tmp_path, "audit-log.csv", "User.csv")
    found = survey(tmp_path, {"AuditLog", "Audit_Log", "User"})
    assert [file.entity for file in found.files] == ["User"]
    assert len(found.passed_over) == 1


def test_a_plural_is_an_entity_of_its_own_and_the_likely_one_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "Posts.csv")
    found = survey(tmp_path, KNOWN)
    assert [file.entity for file in found.files] == ["Posts"]
    [line] = found.read_as
    assert "if it is the export of Post, name it Post_export" in line


def test_a_folder_named_as_an_export_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Post.csv").mkdir()
    fill(tmp_path, "Category.csv")
    with pytest.raises(ExportError, match=r"Post\.csv: is named as the export of Post, but is a folder"):
        survey(tmp_path, KNOWN)


def test_a_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Post.csv").symlink_to(tmp_path / "nowhere.csv")
    fill(tmp_path, "Category.csv")
    with pytest.raises(ExportError, match=r"Post\.csv: is named as the export of Post, but is a link to nothing"):
        survey(tmp_path, KNOWN)


def test_a_folder_of_archives_alone_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    fill(tmp_path, "export.zip")
    with pytest.raises(ExportError, match=r"no export file here.*export\.zip is not read: .*unzip"):
        survey(tmp_path, KNOWN)


@given(st.sampled_from(sorted(["Post", "AuditLog", "User"])), st.data())
def test_no_spelling_of_a_known_entity_is_missed(entity: str, data: st.DataObject) -> None:
    words = re.findall("[A-Z][a-z]+", entity)
    joined = data.draw(st.sampled_from(["", "_", "-", " "])).join(words)
    cased = data.draw(st.sampled_from([str.lower, str.upper, str.swapcase, str]))(joined)
    export = data.draw(st.sampled_from(["", "_export", "-export", " Export", "_EXPORT"]))
    copy = data.draw(st.sampled_from(["", " (1)", "(12)", " - Copy", " copy", " 2"]))
    ending = data.draw(st.sampled_from([".csv", ".CSV", ".json", ".jsonl", ".ndjson", ".tsv"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, cased + export + copy + ending)
        path.touch()
        assert survey(Path(folder), KNOWN).files == (ExportFile(entity, path),)


def test_two_files_for_one_entity_are_an_error_naming_both(tmp_path: Path) -> None:
    fill(tmp_path, "Post.json", "Post_export.csv")
    with pytest.raises(ExportError, match=r"Post\.json and Post_export\.csv are both exports of Post"):
        discover(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"nowhere: there is no such export folder"):
        discover(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    fill(tmp_path, "Post.csv")
    with pytest.raises(ExportError, match=r"Post\.csv: is a file, not an export folder"):
        discover(tmp_path / "Post.csv")


def test_a_folder_without_export_files_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "truth.json")
    with pytest.raises(ExportError, match="no export file here"):
        discover(tmp_path)


def test_an_export_one_folder_further_down_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "my-app"
    inner.mkdir()
    fill(inner, "Post_export.csv")
    with pytest.raises(
        ExportError, match=rf"no export file here.*; {re.escape(str(inner))} has some: name that folder"
    ):
        discover(tmp_path)


def test_an_unreadable_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ExportError, match="cannot be read: Permission denied"):
        discover(tmp_path)


@given(st.lists(st.sampled_from(ascii_lowercase), min_size=4, max_size=13, unique=True).map("".join), st.data())
@example("post", None)
def test_a_name_with_two_letters_exchanged_is_near(name: str, data: st.DataObject | None) -> None:
    at = data.draw(st.integers(0, len(name) - 2)) if data is not None else 1
    misspelt = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    assert nearest(misspelt, ["0", name, "1"]) == name


def test_names_of_other_things_are_not_near() -> None:
    assert nearest("Comment", ["Post", "Event", "Category", "User"]) is None
    assert nearest("Post", []) is None
