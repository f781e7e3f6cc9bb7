from __future__ import annotations

import hashlib
import io
import os
import resource
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.backup.encryption import Key, Sealed, ending, seal, unseal
from b44_assets.backup.model import StoredFile, WalFile
from b44_assets.errors import B44Error, BackupError, BadBackupError

KEY = Key.generate()
KEYS = [None, KEY]


def sealed(data: bytes, key: Key | None) -> tuple[bytes, StoredFile]:
    sink = io.BytesIO()
    result: Sealed = seal(io.BytesIO(data), sink, key)
    file = StoredFile(f"dump{ending(key)}", result.size, result.sha256, result.raw_size, result.raw_sha256)
    return sink.getvalue(), file


def unsealed(stored: bytes, file: StoredFile, key: Key | None) -> bytes:
    sink = io.BytesIO()
    unseal(io.BytesIO(stored), sink, key, file, "b1/dump")
    return sink.getvalue()


@pytest.mark.parametrize("key", KEYS, ids=["plain", "encrypted"])
@given(data=st.one_of(st.binary(max_size=200), st.binary(min_size=1, max_size=50).map(lambda part: part * 9000)))
def test_what_was_sealed_is_read_back(key: Key | None, data: bytes) -> None:
    stored, file = sealed(data, key)

    assert (file.size, file.raw_size) == (len(stored), len(data))
    assert unsealed(stored, file, key) == data


def test_the_same_sealed_twice_under_a_key_does_not_show_that_it_is_the_same() -> None:
    assert sealed(b"the same", KEY)[0] != sealed(b"the same", KEY)[0]


def test_what_is_encrypted_does_not_show(tmp_path: Path) -> None:
    secret = os.urandom(50)

    assert secret not in sealed(secret * 100, KEY)[0]


@pytest.mark.parametrize("key", KEYS, ids=["plain", "encrypted"])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_called_damage(key: Key | None, place: float, bit: int) -> None:
    stored, file = sealed(b"0123456789" * 20_000 + bytes(range(256)), key)
    at = int(place * len(stored))
    damaged = stored[:at] + bytes([stored[at] ^ (1 << bit)]) + stored[at + 1 :]

    with pytest.raises(BadBackupError, match=r"^b1/dump is damaged: its checksum differs from the recorded one$"):
        unsealed(damaged, file, key)


@pytest.mark.parametrize("key", KEYS, ids=["plain", "encrypted"])
def test_damage_at_the_beginning_of_a_long_file_is_not_taken_for_truncation(key: Key | None) -> None:
    stored, file = sealed(os.urandom(5_000_000), key)

    with pytest.raises(BadBackupError, match="is damaged"):
        unsealed(b"?" * 1000 + stored[1000:], file, key)


@pytest.mark.parametrize("key", KEYS, ids=["plain", "encrypted"])
@given(share=st.floats(0, 1, exclude_max=True))
def test_any_truncation_is_called_one(key: Key | None, share: float) -> None:
    stored, file = sealed(os.urandom(150_000), key)
    kept = int(share * len(stored))

    with pytest.raises(BadBackupError, match=rf"^b1/dump is truncated: {kept} of {len(stored)} bytes$"):
        unsealed(stored[:kept], file, key)


class Bomb:
    """A frame of zeros without end, some MB at a time, and a sink that counts what reaches it."""

    def __init__(self, stop: int) -> None:
        self.got = 0
        self.stop = stop

    def write(self, data: bytes, /) -> int:
        self.got += len(data)
        assert self.got <= self.stop
        return len(data)


@pytest.mark.parametrize("key", KEYS, ids=["plain", "encrypted"])
def test_no_more_is_unpacked_than_was_recorded(key: Key | None) -> None:
    stored, file = sealed(bytes(50_000_000), key)
    forged = StoredFile(file.name, file.size, file.sha256, 1_000_000, file.raw_sha256)

    with pytest.raises(BadBackupError, match="it unpacks to more than 1,000,000 bytes"):
        unseal(io.BytesIO(stored), Bomb(1_000_000), key, forged, "b1/dump")


def test_a_history_that_unpacks_to_more_than_one_can_have_is_refused() -> None:
    stored, file = sealed(bytes(20_000_000), None)
    archived = WalFile("00000002.history", file.size, file.sha256, "wal/7/history/x.zst")

    with pytest.raises(BadBackupError, match="it unpacks to more than 1,048,576 bytes"):
        unseal(io.BytesIO(stored), Bomb(1_048_576), None, archived, "x")


def test_a_frame_that_asks_for_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    stored = zstandard.ZstdCompressor(compression_params=parameters).compress(os.urandom(20_000_000))
    record = StoredFile("dump.zst", len(stored), hashlib.sha256(stored).hexdigest(), 20_000_000, "")

    with pytest.raises(BadBackupError, match="cannot be read, although its checksum is right"):
        unseal(io.BytesIO(stored), Bomb(20_000_000), None, record, "b1/dump")


def test_something_added_is_found() -> None:
    stored, file = sealed(b"data", KEY)

    with pytest.raises(BadBackupError, match="is too long"):
        unsealed(stored + b"\0", file, KEY)


def test_another_key_is_called_that_and_not_damage() -> None:
    stored, file = sealed(b"data" * 1000, KEY)

    with pytest.raises(
        BackupError, match=r"^b1/dump is encrypted for another key than the one that is configured$"
    ) as e:
        unsealed(stored, file, Key.generate())
    assert not isinstance(e.value, BadBackupError)


def test_no_key_is_called_that() -> None:
    stored, file = sealed(b"data", KEY)

    with pytest.raises(BackupError, match="no key is configured: set B44_BACKUP_KEY"):
        unsealed(stored, file, None)


def test_a_record_that_does_not_fit_what_is_held_is_found() -> None:
    stored, file = sealed(b"data", None)
    _, other = sealed(b"date", None)
    mixed = StoredFile(file.name, file.size, file.sha256, other.raw_size, other.raw_sha256)

    with pytest.raises(BadBackupError, match="does not hold what was written"):
        unsealed(stored, mixed, None)


@pytest.mark.parametrize("key", KEYS, ids=["plain", "encrypted"])
@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), BackupError("the store is full"), KeyboardInterrupt()]
)
def test_a_fault_of_either_end_is_raised_as_it_is(key: Key | None, fault: BaseException) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise fault

        def write(self, data: object, /) -> int:
            raise fault

    stored, file = sealed(os.urandom(1000), key)
    for call in (
        lambda: seal(Broken(), io.BytesIO(), key),
        lambda: seal(io.BytesIO(os.urandom(1000)), Broken(), key),
        lambda: unseal(Broken(), io.BytesIO(), key, file, "dump"),
        lambda: unseal(io.BytesIO(stored), Broken(), key, file, "dump"),
    ):
        with pytest.raises(type(fault)) as caught:
            call()
        assert caught.value is fault


def test_a_stream_is_never_held_in_memory() -> None:
    class Endless:
        """200 MB that do not compress."""

        def __init__(self) -> None:
            self.left = 200
            self.block = os.urandom(1024**2)

        def read(self, size: int = -1, /) -> bytes:
            self.left -= 1
            return self.block if self.left >= 0 else b""

    class Nowhere:
        def write(self, data: bytes, /) -> int:
            return len(data)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seal(Endless(), Nowhere(), KEY)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert after - before < 50_000  # kB


def test_progress_tells_of_every_byte_that_is_read() -> None:
    data = os.urandom(3_000_000)
    told: list[int] = []
    sink = io.BytesIO()
    result = seal(io.BytesIO(data), sink, KEY, told.append)
    back: list[int] = []
    file = StoredFile("dump.zst.age", result.size, result.sha256, result.raw_size, result.raw_sha256)
    unseal(io.BytesIO(sink.getvalue()), io.BytesIO(), KEY, file, "dump", back.append)

    assert (sum(told), sum(back)) == (len(data), result.size)


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_is_read_from_text_and_from_a_file_of_it(tmp_path: Path) -> None:
    file = tmp_path / "key.txt"
    file.write_text(f"# created: today\n# public key: {KEY.identities[0].to_public()}\n{KEY.secret}\n")

    assert Key.parse(KEY.secret).secret == KEY.secret
    assert Key.parse(KEY.secret.lower()).secret == KEY.secret
    assert Key.parse(str(file)).secret == KEY.secret


def test_a_new_key_before_the_old_one_still_reads_what_the_old_one_sealed(tmp_path: Path) -> None:
    new = Key.generate()
    file = tmp_path / "key.txt"
    file.write_text(f"{new.secret}\n{KEY.secret}\n")
    both = Key.parse(str(file))
    stored, record = sealed(b"old", KEY)

    assert unsealed(stored, record, both) == b"old"
    stored, record = sealed(b"new", both)
    assert unsealed(stored, record, new) == b"new"


def test_a_key_does_not_show() -> None:
    assert KEY.secret not in repr(KEY) + str(KEY)


WRONG = {
    "a letter wrong": KEY.secret[:-1] + ("P" if KEY.secret.endswith("Q") else "Q"),
    "cut off": KEY.secret[:40],
    "of a plugin": "AGE-PLUGIN-YUBIKEY-1ABC",
    "a password": "hunter2",
    "a missing file": "/nowhere/key.txt",
    "no path": "a\0b",
    "nobody's home": "~nobody-of-that-name/x",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(B44Error, match="B44_BACKUP_KEY") as caught:
        Key.parse(text)
    assert "\n" not in str(caught.value)
    if not text.startswith("/"):
        assert text not in str(caught.value)


def test_a_file_without_a_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "key.txt"
    file.write_text("# nothing\n")
    with pytest.raises(BackupError, match=r"key\.txt holds no age identity"):
        Key.parse(str(file))

    file.write_text("hunter2\n")
    with pytest.raises(BackupError, match=r"key\.txt is no age identity") as caught:
        Key.parse(str(file))
    assert "hunter2" not in str(caught.value)
