"""Opening an export file with the reader that its content asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack
from typing import Final

from b44_assets.errors import ExportError
from b44_assets.exports.csv_reader import CsvReader
from b44_assets.exports.dialects import UTF8_MARK, find_form, refuse_other_encodings
from b44_assets.exports.json_envelope import find_envelope
from b44_assets.exports.json_reader import JsonReader
from b44_assets.exports.model import MAX_RECORD_BYTES, Batch, Dialect, ExportFile, ExportReader, Whole
from b44_assets.exports.stream import ExportStream

DEFAULT_BLOCK_BYTES: Final = 2 << 20
_LOOK_BYTES: Final = 1 << 16
_ENVELOPE_BYTES: Final = 1 << 20


def open_export(
    file: ExportFile,
    block_size: int = DEFAULT_BLOCK_BYTES,
    *,
    longest_record: int = MAX_RECORD_BYTES,
    known: Sequence[str] = (),
    apart: Set[str] = frozenset(),
) -> ExportReader:
    """Open a file of the export and find its dialect.

    Args:
        file: As `discover` returns it; its suffix tells CSV from JSON, everything else comes from its content.
        block_size: Bytes to read at a time, at least 1; the memory needed is a small multiple of it.
        longest_record: Longest record, in bytes, that is waited for before the file is given up.
        known: Fields that are looked for. A name that differs from one in case, blanks, `-` and `_` alone is read as it, and
            a file none of whose records has an `id` is refused. Without them, every name stays and any file will do.
        apart: Those of them for which only their own name counts.

    Returns:
        A reader, to be closed after use (a context manager).

    Raises:
        ExportError: The file cannot be opened, is not UTF-8, or has no header or no records that can be read at all.
        FieldClashError: While reading: two fields could be one of `known`; name it in `apart`.
        ValueError: `block_size` or `longest_record` is less than 1.
    """
    if block_size < 1 or longest_record < 1:
        raise ValueError("block_size and longest_record must be at least 1")
    try:
        with ExitStack() as on_error:
            stream = on_error.enter_context(ExportStream(file.path))
            reader = _open(file, stream, block_size, longest_record, known, apart)
            on_error.pop_all()
            return reader
    except OSError as error:
        remedy = "; let this account read it (chmod +r)" if isinstance(error, PermissionError) else ""
        raise ExportError(f"{file.path}: cannot be read: {error.strerror}{remedy}") from error


def _open(
    file: ExportFile,
    stream: ExportStream,
    block_size: int,
    longest_record: int,
    known: Sequence[str],
    apart: Set[str],
) -> ExportReader:
    size = stream.size
    look = stream.read(_LOOK_BYTES)
    refuse_other_encodings(file.path, look)
    begin = 0
    while look.startswith(UTF8_MARK, begin):
        begin += len(UTF8_MARK)
    look = look[begin:]
    while not look.strip():
        look = stream.read(_LOOK_BYTES)
        if not look:
            return _EmptyReader(file, Dialect("empty", byte_order_mark=begin > 0), stream, size)
    if file.path.suffix.lower() in (".csv", ".tsv"):
        form = find_form(file.path, stream, size=size, begin=begin, longest_record=longest_record, known=known)
        return CsvReader(
            file, stream, form, size=size, block_size=block_size, longest_record=longest_record, known=known
        )
    first = look.lstrip()[:1]
    if first not in (b"[", b"{"):
        raise ExportError(f"{file.path}: holds neither an array nor objects of JSON")
    envelope, before, has_mark = None, "", begin > 0
    if first == b"{":
        stream.seek(begin)
        head = stream.read(_ENVELOPE_BYTES).decode("utf-8", "surrogateescape")
        envelope = find_envelope(file.path, head, head.index("{"))
        if envelope is not None:
            before = head[: envelope.begin]
            begin += len(before.encode("utf-8", "surrogateescape"))
    return JsonReader(
        file,
        stream,
        size=size,
        begin=begin,
        has_mark=has_mark,
        is_array=first == b"[",
        block_size=block_size,
        longest_record=longest_record,
        envelope=envelope,
        before=before,
        known=known,
        apart=apart,
    )


class _EmptyReader(ExportReader):
    """Reads a file without content: the dashboard's export of an entity without rows."""

    @property
    def fields(self) -> tuple[str, ...]:
        return ()

    @property
    def bytes_read(self) -> int:
        return self.size

    def _read(self, whole: Whole | None) -> Iterator[Batch]:
        return iter(())
