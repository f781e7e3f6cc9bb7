"""A file of another app under the name of an entity that has a table: told by its fields, and kept like one without a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.catalog import Catalog, TableMapping, load_catalog
from b44_assets.exports import ExportFile
from b44_assets.migration.other_apps import BUILT_IN, files_of_other_apps, of_another_app
from b44_assets.migration.unmapped_entities import keep_unmapped
from tests.helpers.records import object_id, user
from tests.helpers.target import Target

ROOT = Path(__file__).parents[2]
BLOG, SHOP = load_catalog(ROOT / "sql"), load_catalog(ROOT / "examples" / "shop" / "sql")
MAPPINGS = [(catalog, mapping) for catalog in (BLOG, SHOP) for mapping in catalog.mappings.values()]
ENDINGS = ["_export.csv", ".json", ".jsonl"]


def named(value: object) -> str | None:
    return value.entity if isinstance(value, TableMapping) else None


def exported(folder: Path, entity: str, fields: list[str], ending: str, records: int = 2) -> ExportFile:
    path = folder / f"{entity}{ending}"
    objects = [{"id": object_id(number), **dict.fromkeys(fields, "x")} for number in range(records)]
    if ending.endswith(".csv"):
        lines = [",".join(f'"{cell}"' for cell in ("id", *fields))]
        lines += [",".join(f'"{cell}"' for cell in one.values()) for one in objects]
        path.write_text("\n".join(lines) if records else "")
    elif ending == ".json":
        path.write_text(json.dumps(objects))
    else:
        path.write_text("".join(json.dumps(one) + "\n" for one in objects))
    return ExportFile(entity, path)


def own(mapping: TableMapping) -> list[str]:
    return [item.name for item in mapping.fields if not {item.name, *item.spellings} & set(BUILT_IN)]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("catalog", "mapping"), MAPPINGS, ids=named)
def test_a_file_with_none_of_the_fields_that_are_read_is_of_another_app(
    catalog: Catalog, mapping: TableMapping, ending: str, tmp_path: Path
) -> None:
    other = of_another_app(
        mapping, exported(tmp_path, mapping.entity, ["created_date", "severity", "actor_role"], ending)
    )

    if mapping.entity == "User" or len(own(mapping)) < 2:
        assert other is None
        return
    assert other is not None
    assert list(other.lacking) == own(mapping)
    assert other.message().startswith(f"{mapping.entity}{ending} has none of the fields {', '.join(own(mapping)[:4])}")
    assert other.message().endswith(f"that {mapping.spec.path} reads: is it of another app?")
    # One field is enough where there are few others, however it is written.
    spelt = own(mapping)[-1].replace("_", " ").upper()
    assert of_another_app(mapping, exported(tmp_path, mapping.entity, ["severity", spelt], ending)) is None


def test_a_field_in_common_by_chance_makes_a_file_not_the_mapping_s(tmp_path: Path) -> None:
    mapping = BLOG.mappings["audit_logs"]
    others = ["severity", "actor", "entity"]

    other = of_another_app(mapping, exported(tmp_path, "AuditLog", ["action", *others], ".json"))

    assert other is not None
    assert (other.shared, "action" in other.lacking, len(other.lacking)) == (1, False, len(own(mapping)) - 1)
    assert "has 1 of the" in other.message()
    # Two of seven are more than chance, and so is one beside few others.
    for fields in (["action", "record_id", *others, "ip", "before", "after"], ["action", *others[1:]]):
        assert of_another_app(mapping, exported(tmp_path, "AuditLog", fields, ".json")) is None


def test_a_file_with_all_that_is_demanded_is_the_mapping_s_whatever_else_it_has(tmp_path: Path) -> None:
    fields = ["name", *(f"other {number}" for number in range(20))]
    assert of_another_app(BLOG.mappings["categories"], exported(tmp_path, "Category", fields, ".json")) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_tells_nothing_is_taken_for_the_mapping_s(tmp_path: Path, ending: str) -> None:
    mapping = BLOG.mappings["audit_logs"]
    assert of_another_app(mapping, exported(tmp_path, "AuditLog", ["severity"], ending, records=0)) is None
    assert of_another_app(mapping, exported(tmp_path, "AuditLog", ["created_date", "created_by"], ending)) is None
    (tmp_path / f"AuditLog{ending}").write_bytes(b"\xff\xfe\x00")
    assert of_another_app(mapping, ExportFile("AuditLog", tmp_path / f"AuditLog{ending}")) is None


@given(fields=st.lists(st.sampled_from([*BUILT_IN[1:], "severity", "actor"]), unique=True))
def test_built_in_fields_say_nothing(tmp_path_factory: pytest.TempPathFactory, fields: list[str]) -> None:
    file = exported(tmp_path_factory.getbasetemp(), "AuditLog", fields, ".json")
    other = of_another_app(BLOG.mappings["audit_logs"], file)
    assert (other is not None) == bool({"severity", "actor"} & set(fields))


def test_what_one_app_exports_is_not_of_another(tmp_path: Path) -> None:
    for catalog, folder in (
        (BLOG, ROOT / "examples" / "blog"),
        (SHOP, ROOT / "examples" / "shop" / "export" / "csv"),
        (SHOP, ROOT / "examples" / "shop" / "export" / "json"),
    ):
        files = [
            ExportFile(path.name.split("_export")[0].split(".")[0], path)
            for path in folder.iterdir()
            if path.suffix in (".csv", ".json", ".jsonl")
        ]
        assert len([file for file in files if file.entity in catalog.entities]) > 3
        assert files_of_other_apps(catalog, files) == {}


def test_its_records_are_kept_whole_and_none_is_judged(target_18: Target) -> None:
    records = [{"id": object_id(number), "severity": "high", "actor": "x"} for number in (1, 2)]
    target_18.write({"AuditLog": records, "User": [user(1)]})

    staged = target_18.stage("audit_logs")
    kept = keep_unmapped(target_18.session, target_18.export)

    assert (staged.dialect, staged.records) == ("absent", 0)
    assert "AuditLog.jsonl has none of the fields" in staged.other_app
    assert kept.records == {"AuditLog": 2}
    # Of this app it has no more than users, as an export of any app has.
    assert (kept.user_alone, len(kept.warnings)) == (True, 2)
    assert "is it of another app?" in kept.entities[0].other_app
    assert target_18.all("select data from migration.unmapped where entity = 'AuditLog' order by base44_id") == [
        (one,) for one in records
    ]
    # With the app's own file, nothing of it stays.
    target_18.write({"AuditLog": [{"id": object_id(1), "table_name": "users"}], "User": [user(1)]})
    assert target_18.stage("audit_logs").records == 1
    kept = keep_unmapped(target_18.session, target_18.export)
    assert (kept.records, kept.user_alone, kept.warnings) == ({}, False, ())
    assert target_18.all("select data from migration.unmapped where entity = 'AuditLog'") == []
