"""Reading a CSV file block by block, each block split into records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from b44_assets.errors import ExportError
from b44_assets.exports.csv_grammar import Grammar, Split


@dataclass(frozen=True)
class Block:
    """A stretch of the file that begins where a record begins.

    Attributes:
        data: Its bytes.
        split: What they consist of.
        position: How far the file has been read, in bytes.
        is_last: The file ends with it.
    """

    data: bytes
    split: Split
    position: int
    is_last: bool


def blocks(
    path: Path,
    stream: BinaryIO,
    grammar: Grammar,
    *,
    begin: int,
    block_size: int,
    longest_record: int,
    form: re.Pattern[bytes] | None = None,
) -> Iterator[Block]:
    """Read and split a file; an incomplete record is carried over to the next block.

    Args:
        path: For messages.
        stream: The file's bytes, seekable.
        grammar: The form of its records.
        begin: Offset of the first record.
        block_size: Bytes to read at a time.
        longest_record: In bytes; an incomplete record of this length is not waited for any more.
        form: As for `Grammar.split`.

    Raises:
        ExportError: Reading fails, or a record is longer.
    """
    stream.seek(begin)
    position, number, wanted, data, is_last = begin, 1, block_size, b"", False
    while not is_last:
        try:
            more = stream.read(wanted)
        except OSError as error:
            raise ExportError(f"{path}: cannot be read on: {error.strerror}") from error
        position += len(more)
        is_last = len(more) < wanted
        data = data + more if data else more
        split = grammar.split(data, final=is_last, form=form)
        if not is_last and not split.consumed and len(data) >= longest_record:
            split = grammar.split(data, final=False, overlong=True, form=form)
            if not split.consumed:
                raise ExportError(
                    f"{path}: record {number:,} is longer than {longest_record:,} bytes; look for a stray quote in it"
                )
        yield Block(data, split, position, is_last)
        number += split.records
        data = data[split.consumed :]
        # A record longer than the block: double what is read, lest it be split again and again.
        room = max(1, longest_record - len(data))
        wanted = block_size if split.consumed else min(max(block_size, len(data)), room)
