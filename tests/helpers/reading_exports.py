"""What the tests of reading exports share: reading a file of given bytes, and a slow but plain reader of CSV."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from b44_assets.exports import Dialect, ExportFile, Refused, open_export

Row = dict[str, str | None]


@dataclass(frozen=True)
class Reading:
    """All that came out of a file.

    Attributes:
        dialect: As found.
        fields: After reading.
        rows: By record number, each with all fields.
        refused: In the order of the batches.
        oddities: After reading.
        batches: How many there were.
    """

    dialect: Dialect
    fields: tuple[str, ...]
    rows: dict[int, Row]
    refused: tuple[Refused, ...]
    oddities: Counter[str]
    batches: int

    @property
    def cells(self) -> list[list[str | None]]:
        """The rows in order, without field names."""
        return [[row[field] for field in self.fields] for row in self.rows.values()]

    @property
    def reasons(self) -> dict[int, str]:
        """Record number of what was refused, and why."""
        return {one.record_number: one.reason for one in self.refused}


def read_path(path: Path, block_size: int = 8 << 20, longest_record: int = 128 << 20) -> Reading:
    """Read a file, and hold what every reading must keep to."""
    rows: dict[int, Row] = {}
    refused: list[Refused] = []
    batches = 0
    file = ExportFile(path.name.split("_")[0].split(".")[0], path)
    with open_export(file, block_size, longest_record=longest_record) as reader:
        for batch in reader.batches():
            batches += 1
            numbers: list[int] = batch.record_numbers.to_pylist()
            records: list[Row] = batch.columns.to_pylist() or [{} for _ in numbers]
            assert len(numbers) == len(records)
            assert set(map(str, batch.columns.schema.types)) <= {"string"}
            batch.columns.validate(full=True)
            # Every record number once, and none left out.
            here = sorted([*numbers, *(one.record_number for one in batch.refused)])
            begin = len(rows) + len(refused) + 1
            assert here == list(range(begin, begin + len(here)))
            assert here
            rows.update(zip(numbers, records, strict=True))
            refused.extend(batch.refused)
        assert reader.bytes_read == reader.size == path.stat().st_size
        fields = reader.fields
        whole = {number: {field: row.get(field) for field in fields} for number, row in rows.items()}
        return Reading(reader.dialect, fields, whole, tuple(refused), reader.oddities, batches)


def read(
    data: bytes, name: str = "Post_export.csv", *, block_size: int = 8 << 20, longest_record: int = 128 << 20
) -> Reading:
    """Read a file of these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        return read_path(path, block_size, longest_record)


def plain_record(
    data: bytes, at: int = 0, *, delimiter: bytes = b",", all_quoted: bool, final: bool
) -> tuple[list[bytes], int] | None:
    """Read one strict record of CSV, a character at a time.

    Returns:
        Its cells with their quotes and the offset behind its line end; None where there is no whole record.
    """
    cells: list[bytes] = []
    if data[at : at + 1] in (b"", b"\r", b"\n"):
        return None
    if not all_quoted:
        behind = at
        while data[behind : behind + 1] == delimiter:
            behind += 1
        if behind > at and (data[behind:] in (b"", b"\r") or data.startswith((b"\n", b"\r\n"), behind)):
            return None  # a row of delimiters alone is no record
    while True:
        begin = at
        if data[at : at + 1] == b'"':
            at += 1
            while (found := data.find(b'"', at)) >= 0 and data[found + 1 : found + 2] == b'"':
                at = found + 2
            if found < 0:
                return None
            at = found + 1
        elif all_quoted:
            return None
        else:
            while at < len(data) and data[at : at + 1] not in (b'"', b"\r", b"\n", delimiter):
                at += 1
        cells.append(data[begin:at])
        if data[at : at + 1] == delimiter:
            at += 1
            continue
        for line_end in (b"\n", b"\r\n"):
            if data.startswith(line_end, at):
                return cells, at + len(line_end)
        return (cells, len(data)) if final and data[at:] in (b"", b"\r") else None
