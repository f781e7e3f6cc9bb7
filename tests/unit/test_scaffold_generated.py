"""An app's tables inferred from exports that were made from its schemas: in every dialect the same, whatever is wrong in them."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from b44_assets.exports.discovery import discover
from b44_assets.exports.opening import open_export
from b44_assets.sample.dialects import DIALECTS
from b44_assets.scaffold.entity_schemas import read_schemas
from b44_assets.scaffold.inference import infer
from b44_assets.scaffold.model import App, ColumnType, Reading
from tests.helpers.app_exports import Truth, Wrong, is_cell, write_app_export

TEXT = {"type": "string"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "Boat": {
        "name": {"type": "string", "maxLength": 40},
        "harbour_id": TEXT,
        "crewIds": {"type": "array", "items": TEXT},
        "length": {"type": "number", "minimum": 0},
        "masts": {"type": "integer"},
        "state": {"type": "string", "enum": ["afloat", "ashore"]},
        "launched": {"type": "string", "format": "date"},
        "seen_at": {"type": "string", "format": "date-time"},
        "sails": {"type": "array", "items": TEXT},
        "log": {
            "type": "array",
            "items": {"type": "object", "properties": {"text": TEXT, "miles": {"type": "number"}}},
        },
        "engine": {"type": "object", "properties": {"power": {"type": "number"}}},
        "insured": {"type": "boolean"},
    },
    "Crew": {"user_id": TEXT, "notes": TEXT, "watch": {"type": "string", "format": "time"}},
    "Harbour": {"title": TEXT, "order": {"type": "integer"}, "from": {"type": "string", "format": "date"}},
}
REQUIRED = {"Boat": ["name", "harbour_id"]}
RECORDS = 150


@cache
def reading() -> Reading:
    with TemporaryDirectory() as folder:
        for name, properties in SCHEMAS.items():
            schema = {"name": name, "type": "object", "properties": properties, "required": REQUIRED.get(name, [])}
            (Path(folder) / f"{name}.jsonc").write_text(json.dumps(schema), encoding="utf-8")
        return read_schemas(Path(folder))


@pytest.fixture(scope="module", params=DIALECTS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth, App]:
    folder = tmp_path_factory.mktemp("export")
    truth = write_app_export(folder, reading().entities, dialect=request.param, records=RECORDS)
    return folder, truth, infer(reading(), folder)


def test_an_independent_reading_finds_what_the_truth_has(made: tuple[Path, Truth, App]) -> None:
    folder, truth, _ = made
    for file in discover(folder):
        with open_export(file) as reader:
            rows = [row for batch in reader.batches() for row in batch.columns.to_pylist()]
        assert len(rows) == len(truth.records[file.entity])
        for row, record in zip(rows, truth.records[file.entity], strict=True):
            wrong = {
                name: (value, row.get(name)) for name, value in record.items() if not is_cell(value, row.get(name))
            }
            assert wrong == {}


def test_the_types_are_those_of_the_schemas(made: tuple[Path, Truth, App]) -> None:
    boats = {one.name: one for one in made[2].tables}["boats"]
    assert {one.name: one.type for one in boats.columns} == {
        "id": ColumnType.UUID,
        "name": ColumnType.TEXT,
        "harbour_id": ColumnType.UUID,
        "crew_ids": ColumnType.UUID_ARRAY,
        "length": ColumnType.NUMERIC,
        "masts": ColumnType.BIGINT,
        "state": ColumnType.TEXT,
        "launched": ColumnType.DATE,
        "seen_at": ColumnType.TIMESTAMPTZ,
        "sails": ColumnType.TEXT_ARRAY,
        "log": ColumnType.JSONB,
        "engine": ColumnType.JSONB,
        "insured": ColumnType.BOOLEAN,
        "created_at": ColumnType.TIMESTAMPTZ,
        "updated_at": ColumnType.TIMESTAMPTZ,
        "created_by_id": ColumnType.TEXT,
        "created_by": ColumnType.TEXT,
        "is_sample": ColumnType.BOOLEAN,
    }


def test_the_counts_are_those_of_the_truth(made: tuple[Path, Truth, App]) -> None:
    _, truth, app = made
    counted = Counter((fault.entity, fault.field, fault.wrong) for fault in truth.faults)
    assert {wrong for _, _, wrong in counted} == set(Wrong)
    for table in app.tables:
        entity = table.entity.name
        for column in table.columns:
            field, counts = column.field, column.counts
            if counts is None or field.name not in {one for names in SCHEMAS.values() for one in names}:
                continue
            blank = sum(record[field.name] in (None, "") for record in truth.records[entity])
            dangling = counted[entity, field.name, Wrong.DANGLING] + counted[entity, field.name, Wrong.EMAIL]
            outside = counted[entity, field.name, Wrong.ENUM] + counted[entity, field.name, Wrong.LIMIT]
            unfit = counted[entity, field.name, Wrong.TYPE] + counted[entity, field.name, Wrong.EMAIL]
            assert (counts.missing, counts.filled) == (blank, RECORDS - blank), (entity, field.name)
            if column.reference is None:
                assert (counts.outside, counts.unfit) == (outside, unfit), (entity, field.name)
            elif column.type is ColumnType.UUID:
                assert counts.found == counts.filled - dangling, (entity, field.name)
            assert column.type is ColumnType.UUID_ARRAY or column.fits == (
                not outside and not dangling and not (field.required and blank)
            ), (entity, field.name)
