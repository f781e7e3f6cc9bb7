"""Finding the files of an export in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from b44_assets.errors import ExportError
from b44_assets.exports import ExportFile, discover


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


@pytest.mark.parametrize(
    "name",
    [
        "truth.json",
        "commerce.order.json",
        "README.md",
        ".Post_export.csv",
        "Post_export.csv.bak",
        "Post_export (1).csv",
        "Post-export.csv",
        "Post",
        ".csv",
        "2Post.csv",
        "Post_export.xlsx",
    ],
)
def test_other_files_are_ignored(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name, "Category.csv")
    assert [file.entity for file in discover(tmp_path)] == ["Category"]


def test_folders_are_ignored_and_not_entered(tmp_path: Path) -> None:
    (tmp_path / "Post.csv").mkdir()
    fill(tmp_path / "Post.csv", "User.csv")
    fill(tmp_path, "Category.csv")
    assert [file.entity for file in discover(tmp_path)] == ["Category"]


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


def test_an_unreadable_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ExportError, match="cannot be read: Permission denied"):
        discover(tmp_path)
