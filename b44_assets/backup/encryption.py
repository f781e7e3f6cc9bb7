"""How a file lies in the store: compressed by zstd and, with a key, encrypted by age; and how it is read back.

Both are streams: nothing is held in memory but a block. The checksum of what is stored tells damage without the key; the
one of what it holds tells that reading it back gave what was written.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import pyrage
import zstandard

from b44_assets.backup.model import StoredFile, WalFile
from b44_assets.backup.store import CHUNK, Sink
from b44_assets.errors import BackupError, BadBackupError
from b44_assets.wording import plural

LEVEL = 3
_IDENTITY = re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]+", re.IGNORECASE)
_NO_MATCH = "No matching keys found"
# What a segment of the WAL can have at most, and more than a timeline's history will ever have.
_LONGEST_SEGMENT = 1024**3
_LONGEST_HISTORY = 1024**2
# Four times what our level asks for: a forged file shall not ask for more memory than that.
_LARGEST_WINDOW = 8 * 1024**2

Progress = Callable[[int], None]
"""Told how many more bytes have been read, each time some have."""


class Source(Protocol):
    """What bytes are read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Returns at most so many bytes, none at the end."""
        ...


@dataclass(frozen=True)
class Key:
    """The age identities that backups are encrypted for and read with. What is shown of it is never the secret.

    Attributes:
        identities: The first is encrypted for; all are tried for reading, so that older backups stay readable after a
            new one was put first.
    """

    identities: tuple[pyrage.x25519.Identity, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads an identity, or a file of identities as `age-keygen` writes it.

        Args:
            text: `AGE-SECRET-KEY-1…`, or the path of the file.

        Raises:
            BackupError: It is neither; the text is not shown unless it is the name of a file.
        """
        text = text.strip()
        if text.upper().startswith("AGE-"):
            return cls((_identity(text, "the key of backups (B44_BACKUP_KEY)"),))
        path = Path(text)
        try:
            lines = path.expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError, RuntimeError) as error:
            shown = f"{path} cannot be read" if text.startswith("/") else "it cannot be read as a file"
            raise BackupError(
                "the key of backups (B44_BACKUP_KEY) is neither an age identity (AGE-SECRET-KEY-1…) nor a file of one:"
                f" {shown}"
            ) from error
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise BackupError(f"{path} holds no age identity (AGE-SECRET-KEY-1…)")
        return cls(tuple(_identity(line, str(path)) for line in found))

    @classmethod
    def generate(cls) -> Self:
        """Returns a new key. Whoever loses it has lost the backups."""
        return cls((pyrage.x25519.Identity.generate(),))

    @property
    def secret(self) -> str:
        """The first identity, `AGE-SECRET-KEY-1…`: for the file that the user keeps, and nowhere else."""
        return str(self.identities[0])


def _identity(text: str, where: str) -> pyrage.x25519.Identity:
    try:
        if _IDENTITY.fullmatch(text):
            return pyrage.x25519.Identity.from_str(text.upper())
    except pyrage.IdentityError:
        pass
    # The text may be a secret with one letter wrong, and is not shown.
    raise BackupError(f"{where} is no age identity: one is a line of 74 letters and digits, AGE-SECRET-KEY-1…")


@dataclass(frozen=True)
class Sealed:
    """What became of a stream.

    Attributes:
        size: Of what was written, in bytes.
        sha256: Of what was written, in hexadecimal.
        raw_size: Of what was read, in bytes.
        raw_sha256: Of what was read, in hexadecimal.
    """

    size: int
    sha256: str
    raw_size: int
    raw_sha256: str


def ending(key: Key | None) -> str:
    """Returns what is put behind the name of a file that is sealed so."""
    return ".zst" if key is None else ".zst.age"


def seal(source: Source, sink: Sink, key: Key | None, progress: Progress | None = None) -> Sealed:
    """Compresses a stream, and encrypts it if there is a key.

    Args:
        source: Read to its end.
        sink: What is stored.
        key: Whom to encrypt for; None does not encrypt.
        progress: Told of the bytes read.

    Raises:
        Exception: Whatever the source or the sink raises, as it is.
    """
    raw = _Reader(source, progress)
    stored = _Writer(sink)
    # Its own checksum is for who opens the file without us.
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    # Not closefd: the source is the caller's.
    with compressor.stream_reader(raw, read_size=CHUNK, closefd=False) as compressed:  # pyright: ignore[reportArgumentType]
        if key is None:
            while chunk := compressed.read(CHUNK):
                stored.write(chunk)
        else:
            # Buffered, since pyrage asks for 8 KiB at a time.
            _pyrage(
                lambda: pyrage.encrypt_io(
                    io.BufferedReader(_Raw(compressed), CHUNK), stored, [key.identities[0].to_public()]
                ),
                (raw, stored),
            )
    return Sealed(stored.size, stored.hash.hexdigest(), raw.size, raw.hash.hexdigest())


def unseal(
    source: Source,
    sink: Sink,
    key: Key | None,
    expected: StoredFile | WalFile,
    label: str,
    progress: Progress | None = None,
) -> int:
    """Reads back what was sealed, and holds it against what was recorded of it.

    What reaches the sink is to be thrown away if this raises: a fault may show at the very end.

    Args:
        source: What is stored; read to its end, even where it cannot be decoded, to tell why.
        sink: What it holds.
        key: To decrypt with.
        expected: What was recorded; its name tells whether it is encrypted (`.age`).
        label: How the file is called in messages.
        progress: Told of the stored bytes read.

    Returns:
        The size of what it holds, in bytes.

    Raises:
        BackupError: It is encrypted, and there is no key or a wrong one.
        BadBackupError: It is truncated or damaged, or does not hold what was recorded.
        Exception: Whatever the source or the sink raises, as it is.
    """
    encrypted = expected.name.endswith(".age") if isinstance(expected, StoredFile) else expected.encrypted
    if encrypted and key is None:
        raise BackupError(f"{label} is encrypted, and no key is configured: set B44_BACKUP_KEY")
    stored = _Reader(source, progress)
    raw = _Writer(sink, _longest(expected))
    fault: Exception | None = None
    unpacked = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_writer(raw, closefd=False)  # pyright: ignore[reportArgumentType]
    try:
        if key is not None and encrypted:
            _pyrage(
                lambda: pyrage.decrypt_io(io.BufferedReader(_Raw(stored), CHUNK), unpacked, list(key.identities)),
                (stored, raw),
            )
        else:
            while chunk := stored.read(CHUNK):
                unpacked.write(chunk)
    except (pyrage.DecryptError, zstandard.ZstdError, _Undecodable, _TooMuch) as error:
        fault = error
        while stored.read(CHUNK):
            pass
    check_stored(expected, stored.size, stored.hash.hexdigest(), label)
    if isinstance(fault, _TooMuch):
        assert raw.limit is not None
        raise BadBackupError(
            f"{label} does not hold what was written: it unpacks to more than {raw.limit:,} {plural(raw.limit, 'byte')}"
        ) from fault
    if fault is not None:
        if isinstance(fault, pyrage.DecryptError) and str(fault) == _NO_MATCH:
            raise BackupError(f"{label} is encrypted for another key than the one that is configured") from fault
        raise BadBackupError(f"{label} cannot be read, although its checksum is right: {fault}") from fault
    if isinstance(expected, StoredFile) and (raw.size, raw.hash.hexdigest()) != (
        expected.raw_size,
        expected.raw_sha256,
    ):
        raise BadBackupError(
            f"{label} does not hold what was written: {raw.size} {plural(raw.size, 'byte')}, not {expected.raw_size}"
        )
    return raw.size


def check_stored(expected: StoredFile | WalFile, size: int, sha256: str, label: str) -> None:
    """Holds what is stored against what was recorded.

    Raises:
        BadBackupError: It is truncated, too long, or damaged; says which.
    """
    if size < expected.size:
        raise BadBackupError(f"{label} is truncated: {size} of {expected.size} {plural(expected.size, 'byte')}")
    if size > expected.size:
        raise BadBackupError(f"{label} is too long: {size} {plural(size, 'byte')} instead of {expected.size}")
    if sha256 != expected.sha256:
        raise BadBackupError(f"{label} is damaged: its checksum differs from the recorded one")


class _Undecodable(Exception):
    """What pyrage says of a file that it cannot decrypt to the end, told from a fault of the disk."""


class _TooMuch(Exception):
    """A file unpacks to more than there can have been."""


def _longest(expected: StoredFile | WalFile) -> int:
    """Returns how many bytes a file may unpack to; more is not written anywhere."""
    if isinstance(expected, StoredFile):
        return expected.raw_size
    return _LONGEST_HISTORY if expected.name.endswith(".history") else _LONGEST_SEGMENT


class _Reader:
    """Counts and hashes what is read, and remembers what was raised."""

    def __init__(self, source: Source, progress: Progress | None) -> None:
        self._source = source
        self._progress = progress
        self.size = 0
        self.hash = hashlib.sha256()
        self.raised: BaseException | None = None

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self._source.read(size)
            if data and self._progress is not None:
                self._progress(len(data))
        except BaseException as error:
            self.raised = error
            raise
        self.size += len(data)
        self.hash.update(data)
        return data


class _Writer:
    """Counts and hashes what is written, and remembers what was raised."""

    def __init__(self, sink: Sink, limit: int | None = None) -> None:
        self._sink = sink
        self.limit = limit
        self.size = 0
        self.hash = hashlib.sha256()
        self.raised: BaseException | None = None

    def write(self, data: bytes, /) -> int:
        try:
            if self.limit is not None and self.size + len(data) > self.limit:
                raise _TooMuch
            self._sink.write(data)
        except BaseException as error:
            self.raised = error
            raise
        self.size += len(data)
        self.hash.update(data)
        return len(data)

    def flush(self) -> None:
        """There is nothing to flush."""


class _Raw(io.RawIOBase):
    """A reader as the buffers of `io` want it."""

    def __init__(self, reader: Source) -> None:
        super().__init__()
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._reader.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _pyrage(call: Callable[[], None], ends: tuple[_Reader | _Writer, ...]) -> None:
    """Calls pyrage and raises what our ends have raised, which it turns into errors of its own, or drops.

    It drops what is raised when its last buffer is written: without this, a store that is full at the very end would go
    unnoticed.
    """
    fault: Exception | None = None
    try:
        call()
    except Exception as error:
        fault = error
    for end in ends:
        if end.raised is not None:
            raise end.raised
    if isinstance(fault, OSError):
        raise _Undecodable(str(fault)) from fault
    if fault is not None:
        raise fault
