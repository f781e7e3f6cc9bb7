from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.backup import serialization as records
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.encryption import Key
from b44_assets.backup.model import Backup, BackupKind, Verification
from b44_assets.backup.service import newest_good
from b44_assets.backup.store import Store
from b44_assets.errors import BackupError, BadBackupError
from tests.helpers import disks
from tests.helpers.making import BAD, GOOD, NOW, a_backup, stored_backup

KEY = Key.generate()


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Catalogue:
    return Catalogue(Store.at(str(tmp_path / "store")), request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Catalogue:
    return Catalogue(Store.at(str(tmp_path / "store")))


def stored_file(catalogue: Catalogue, backup: Backup, index: int = 0) -> Path:
    return Path(catalogue.store.location, "backups", backup.id, backup.files[index].name)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


# -- what counts -------------------------------------------------------------------------------------------------------


def test_a_backup_is_read_as_it_was_recorded(catalogue: Catalogue) -> None:
    base = stored_backup(
        catalogue, a_backup(BackupKind.BASE, 1), {"base.tar": b"tar", "wal/000000010000000000000003": b"wal"}
    )
    dump = stored_backup(catalogue, a_backup(verification=None))

    assert catalogue.backups() == [base, dump]
    assert base.good
    assert not dump.good


def test_a_backup_counts_from_its_record_on_and_not_before(plain: Catalogue) -> None:
    backup_id = plain.new_id(BackupKind.LOGICAL, NOW)
    file = plain.add_file(backup_id, "dump", io.BytesIO(b"data"))

    assert plain.backups() == []
    (attempt,) = plain.listing().attempts
    assert (attempt.id, attempt.kind, attempt.began_at, attempt.size) == (backup_id, "logical", NOW, file.size)

    plain.record(replace(a_backup(), id=backup_id, files=(file,)))

    assert [backup.id for backup in plain.backups()] == [backup_id]
    assert plain.listing().attempts == ()


def test_an_id_is_given_once(plain: Catalogue) -> None:
    given_ids = [plain.new_id(BackupKind.BASE, NOW) for _ in range(3)]

    assert given_ids == ["20261126T151500Z-base", "20261126T151500Z-base-2", "20261126T151500Z-base-3"]


def test_an_id_that_another_process_has_just_taken_is_not_given_again(
    plain: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.new_id(BackupKind.BASE, NOW)
    # As if it had been listed before.
    monkeypatch.setattr(Store, "names", lambda *_: {})

    assert plain.new_id(BackupKind.BASE, NOW) == "20261126T151500Z-base-2"


def test_kill_9_while_a_file_is_stored_leaves_an_attempt_and_no_backup(plain: Catalogue) -> None:
    program = (
        "import os, signal, sys\n"
        "from datetime import UTC, datetime\n"
        "from b44_assets.backup.catalogue import Catalogue\n"
        "from b44_assets.backup.store import Store\n"
        "class Source:\n"
        "    left = 20\n"
        "    def read(self, size=-1):\n"
        "        self.left -= 1\n"
        "        return os.urandom(100_000) if self.left else os.kill(os.getpid(), signal.SIGKILL)\n"
        "catalogue = Catalogue(Store.at(sys.argv[1]))\n"
        "catalogue.add_file(catalogue.new_id('logical', datetime.now(UTC)), 'dump', Source())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, plain.store.location], check=False)

    assert ended.returncode == -signal.SIGKILL
    assert plain.backups() == []
    assert [attempt.size for attempt in plain.listing().attempts] == [0]


def test_an_attempt_that_failed_takes_up_no_space_and_is_still_seen(plain: Catalogue) -> None:
    backup_id = plain.new_id(BackupKind.BASE, NOW)
    plain.add_file(backup_id, "wal/000000010000000000000003", io.BytesIO(os.urandom(10_000)))

    plain.discard(backup_id)

    assert [(attempt.id, attempt.size) for attempt in plain.listing().attempts] == [(backup_id, 0)]


def test_a_complete_backup_is_not_discarded(plain: Catalogue) -> None:
    backup = stored_backup(plain, a_backup())

    with pytest.raises(BackupError, match="is a complete backup"):
        plain.discard(backup.id)
    assert plain.backups() == [backup]


def test_a_removed_backup_is_gone_as_a_whole(plain: Catalogue) -> None:
    backup = stored_backup(plain, a_backup(), {"dump": b"x", "wal/000000010000000000000003": b"y"})

    plain.remove(backup.id)

    assert plain.store.names() == {}
    assert plain.listing().attempts == ()


def test_a_backup_that_is_half_removed_does_not_count_and_is_seen(
    plain: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = stored_backup(plain, a_backup(), {"dump": b"x", "roles.sql": b"y"})
    remove = type(plain.store).remove

    def killed(store: Store, path: str) -> None:
        if path.endswith("roles.sql.zst"):
            raise KeyboardInterrupt
        remove(store, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(plain.store), "remove", killed)
        plain.remove(backup.id)

    assert plain.backups() == []
    assert [attempt.id for attempt in plain.listing().attempts] == [backup.id]
    plain.remove(backup.id)
    assert plain.store.names() == {}


# -- verifications -----------------------------------------------------------------------------------------------------


def test_the_newest_verification_counts_and_all_are_kept(plain: Catalogue) -> None:
    backup = stored_backup(plain, a_backup(verification=None))
    verifications = [
        Verification(NOW + timedelta(days=day), day + 0.5, differences)
        for day, differences in enumerate([(), ("x",), ()])
    ]
    for verification in (verifications[2], verifications[0], verifications[1]):
        plain.record_verification(backup, verification)

    assert plain.backups()[0].verification == verifications[2]
    kept = list(Path(plain.store.location, "backups", backup.id).glob("verification-*.json"))
    assert len(kept) == len(verifications)


def test_a_verification_under_the_name_of_earlier_versions_counts_by_its_time(plain: Catalogue) -> None:
    backup = stored_backup(plain, a_backup(verification=None))
    plain.record_verification(backup, GOOD)
    (written,) = Path(plain.store.location, "backups", backup.id).glob("verification-*.json")
    written.rename(written.with_name(written.name.replace("verification", "proof")))
    plain.record_verification(backup, replace(BAD, verified_at=GOOD.verified_at - timedelta(days=1)))
    assert plain.backups()[0].verification == GOOD
    newer = replace(BAD, verified_at=GOOD.verified_at + timedelta(days=1))
    plain.record_verification(backup, newer)
    assert plain.backups()[0].verification == newer


def test_where_the_newest_verification_cannot_be_read_the_one_before_does_not_count(plain: Catalogue) -> None:
    backup = stored_backup(plain, a_backup())
    later = GOOD.verified_at + timedelta(days=1)
    plain.record_verification(backup, replace(BAD, verified_at=later))
    damaged = f"backups/{backup.id}/verification-20261127T151500.000000Z.json"
    flip(Path(plain.store.location, damaged))

    listing = plain.listing()

    assert listing.backups == (replace(backup, verification=None),)
    assert len(listing.faults) == 1
    assert listing.faults[0].startswith(f"{damaged} is damaged")


# -- records -----------------------------------------------------------------------------------------------------------


@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_record_with_a_flipped_bit_says_the_same_or_is_refused(position: int, bit: int) -> None:
    backup = a_backup(BackupKind.INCREMENTAL, parent="20261101T000000Z-base", verification=None)
    data = bytearray(records.written(records.from_backup(backup)))
    data[position % len(data)] ^= 1 << bit

    try:
        found = records.to_backup(records.read(bytes(data), "backup.json"), "backup.json")
    except BadBackupError as error:
        assert str(error).startswith("backup.json ")
        assert "\n" not in str(error)
    else:
        assert found == backup


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_record_is_refused(share: float) -> None:
    data = records.written(records.from_backup(a_backup()))

    with pytest.raises(BadBackupError, match="is damaged"):
        records.read(data[: int(share * len(data))], "backup.json")


def test_a_damaged_record_is_named_and_hides_no_other(plain: Catalogue) -> None:
    first, second, third = (stored_backup(plain, a_backup(days_ago=days)) for days in (3, 2, 1))
    flip(Path(plain.store.location, "backups", second.id, "backup.json"))

    listing = plain.listing()

    assert listing.backups == (first, third)
    assert len(listing.faults) == 1
    assert listing.faults[0].startswith(f"backups/{second.id}/backup.json is damaged")
    with pytest.raises(BadBackupError, match=rf"backups/{second.id}/backup.json is damaged"):
        plain.find(second.id)


def test_the_record_of_another_backup_is_refused(plain: Catalogue) -> None:
    first, second = (stored_backup(plain, a_backup(days_ago=days)) for days in (2, 1))
    folder = Path(plain.store.location, "backups")
    (folder / second.id / "backup.json").write_bytes((folder / first.id / "backup.json").read_bytes())

    assert plain.listing().faults == (f"backups/{second.id}/backup.json is the record of another backup, {first.id}",)


def test_a_record_of_a_newer_version_is_called_that(plain: Catalogue) -> None:
    backup = stored_backup(plain, a_backup())
    path = Path(plain.store.location, "backups", backup.id, "backup.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))

    assert plain.listing().faults == (f"backups/{backup.id}/backup.json has format 2, and this version reads 1",)


def test_what_else_lies_in_the_store_is_passed_over(plain: Catalogue) -> None:
    backup = stored_backup(plain, a_backup())
    for path in ("backups/readme.txt", "backups/mine/notes", "lost+found/x"):
        plain.store.put(path, io.BytesIO(b"x"))

    listing = plain.listing()

    assert (listing.backups, listing.attempts, listing.faults) == ((backup,), (), ())


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_as_it_was_added(catalogue: Catalogue, tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    backup = stored_backup(catalogue, a_backup(), {"dump": data, "roles.sql": b"roles"})

    into = tmp_path / "dump"
    catalogue.fetch(backup, catalogue.file_of(backup, "dump"), into)

    assert into.read_bytes() == data
    assert stat.S_IMODE(into.stat().st_mode) == 0o600


def test_a_fetch_that_fails_leaves_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    backup = stored_backup(catalogue, a_backup())
    flip(stored_file(catalogue, backup))

    with pytest.raises(BadBackupError, match="is damaged"):
        catalogue.fetch(backup, backup.files[0], tmp_path / "dump")
    assert not (tmp_path / "dump").exists()


def test_a_fetch_overwrites_nothing(plain: Catalogue, tmp_path: Path) -> None:
    backup = stored_backup(plain, a_backup())
    (tmp_path / "dump").write_text("mine")

    with pytest.raises(BackupError, match="dump cannot be written: File exists"):
        plain.fetch(backup, backup.files[0], tmp_path / "dump")
    assert (tmp_path / "dump").read_text() == "mine"


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_fifty_sound_backups_raise_no_alarm(key: Key | None) -> None:
    catalogue = Catalogue(Store.at(f"memory://{uuid.uuid4()}"), key)
    for number in range(50):
        stored_backup(catalogue, a_backup(days_ago=number), {"dump": os.urandom(number * 999), "roles.sql": b""})

    listing = catalogue.listing()

    assert len(listing.backups) == 50
    assert listing.faults == ()
    assert [fault for backup in listing.backups for fault in Catalogue(catalogue.store).examine(backup)] == []
    for backup in listing.backups:
        catalogue.read(backup, backup.files[0], io.BytesIO())


def test_each_fault_of_a_stored_file_is_named_without_the_key(catalogue: Catalogue) -> None:
    backup = stored_backup(catalogue, a_backup(), {name: os.urandom(5000) for name in ("a", "b", "c", "d")})
    flip(stored_file(catalogue, backup, 0))
    os.truncate(stored_file(catalogue, backup, 1), 100)
    stored_file(catalogue, backup, 2).unlink()

    a, b, c, _ = (f"{backup.id}/{file.name}" for file in backup.files)
    assert Catalogue(catalogue.store).examine(backup) == [
        f"{a} is damaged: its checksum differs from the recorded one",
        f"{b} is truncated: 100 of {backup.files[1].size} bytes",
        f"{c} is missing",
    ]


def test_a_wrong_key_is_told_from_damage(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    backup = stored_backup(Catalogue(store, KEY), a_backup())
    other = Catalogue(store, Key.generate())

    assert other.examine(backup) == []
    with pytest.raises(BackupError, match="is encrypted for another key"):
        other.read(backup, backup.files[0], io.BytesIO())


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_a_full_store_is_one_line_and_leaves_older_backups_as_they_were(tmp_path: Path, key: Key | None) -> None:
    with disks.small(tmp_path / "small", megabytes=1) as disk:
        catalogue = Catalogue(Store.at(str(disk)), key)
        older = stored_backup(catalogue, a_backup(days_ago=1), {"dump": os.urandom(500_000)})
        backup_id = catalogue.new_id(BackupKind.LOGICAL, NOW)

        # All but the very last bytes would fit, too.
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        for size in (4_000_000, free + 1):
            with pytest.raises(
                BackupError, match=r"dump\.zst(\.age)? cannot be written: No space left on device \([0-9.]+ MB free"
            ):
                catalogue.add_file(backup_id, "dump", io.BytesIO(os.urandom(size)))
        catalogue.discard(backup_id)

        assert catalogue.backups() == [older]
        assert catalogue.examine(older) == []
        assert catalogue.store.unfinished() == {}


# -- finding -----------------------------------------------------------------------------------------------------------


def test_a_backup_is_found_by_its_id_or_a_beginning_that_only_it_has(plain: Catalogue) -> None:
    first = stored_backup(plain, a_backup(days_ago=1))
    second = stored_backup(plain, a_backup(days_ago=1))
    third = stored_backup(plain, a_backup(BackupKind.BASE))

    # The second's id begins with the first's.
    assert plain.find(first.id) == first
    assert plain.find(second.id) == second
    assert plain.find(third.id[:9]) == third
    with pytest.raises(BackupError, match="the beginning of 2 backups"):
        plain.find("20261125")
    for text in ("20270101", "", "../x"):
        with pytest.raises(BackupError, match="holds no backup"):
            plain.find(text)


def test_the_latest_is_the_newest_good_one(plain: Catalogue) -> None:
    good = stored_backup(plain, a_backup(days_ago=3))
    stored_backup(plain, a_backup(days_ago=2, verification=BAD))
    stored_backup(plain, a_backup(days_ago=1, verification=None))
    base = stored_backup(plain, a_backup(BackupKind.BASE, days_ago=2.5))

    assert plain.find("logical/latest") == good
    assert plain.find("latest") == base
    with pytest.raises(BackupError, match="holds no incremental backup that was verified and found good"):
        plain.find("incremental/latest")


def test_the_newest_good_backup_of_a_database_is_one_that_it_can_be_restored_from(plain: Catalogue) -> None:
    name = a_backup().database
    stored_backup(plain, a_backup(BackupKind.MIGRATION, days_ago=1))
    assert newest_good(plain.backups(), name) is None
    good = stored_backup(plain, a_backup(days_ago=3))
    stored_backup(plain, a_backup(days_ago=2, verification=BAD))
    assert newest_good(plain.backups(), name) == good
    assert newest_good(plain.backups(), "another") is None
    base = stored_backup(plain, a_backup(BackupKind.BASE, days_ago=2.5))
    assert newest_good(plain.backups(), "another") == newest_good(plain.backups(), name) == base


# -- chains ------------------------------------------------------------------------------------------------------------


def chain_of_three(catalogue: Catalogue) -> list[Backup]:
    base = stored_backup(catalogue, a_backup(BackupKind.BASE, 3))
    middle = stored_backup(catalogue, a_backup(BackupKind.INCREMENTAL, 2, parent=base.id))
    last = stored_backup(catalogue, a_backup(BackupKind.INCREMENTAL, 1, parent=middle.id, verification=None))
    return [base, middle, last]


def test_a_chain_begins_with_its_base(plain: Catalogue) -> None:
    links = chain_of_three(plain)

    assert plain.chain(links[2]) == links
    assert plain.chain(links[0]) == links[:1]


def test_a_missing_link_is_named(plain: Catalogue) -> None:
    base, middle, last = chain_of_three(plain)
    plain.remove(base.id)

    with pytest.raises(BadBackupError) as caught:
        plain.chain(last)
    assert str(caught.value) == f"the chain of {last.id} is broken at {middle.id}: its parent {base.id} is missing"


def test_a_link_whose_record_is_damaged_is_named(plain: Catalogue) -> None:
    _, middle, last = chain_of_three(plain)
    flip(Path(plain.store.location, "backups", middle.id, "backup.json"))

    with pytest.raises(BadBackupError, match=rf"broken at {last.id}: backups/{middle.id}/backup.json is damaged"):
        plain.chain(last)


def test_a_link_that_was_found_bad_is_named(plain: Catalogue) -> None:
    base, middle, last = chain_of_three(plain)
    plain.record_verification(base, replace(BAD, verified_at=NOW + timedelta(days=1)))

    with pytest.raises(BadBackupError, match=rf"broken at {middle.id}: its parent {base.id} did not hold .*: table"):
        plain.chain(last)


@pytest.mark.parametrize("change", [{"system": "1"}, {"kind": BackupKind.LOGICAL}], ids=str)
def test_a_link_that_cannot_be_one_is_named(plain: Catalogue, change: dict[str, object]) -> None:
    parent = stored_backup(plain, replace(a_backup(BackupKind.BASE, 2), **change))  # pyright: ignore[reportArgumentType]
    last = stored_backup(plain, a_backup(BackupKind.INCREMENTAL, 1, parent=parent.id))

    with pytest.raises(BadBackupError, match=rf"{parent.id}, which it names as its parent, cannot be that"):
        plain.chain(last)


# -- drills ------------------------------------------------------------------------------------------------------------


def test_drills_are_kept_by_time(plain: Catalogue) -> None:
    plain.add_drill(NOW, {"rpo_seconds": 2.5})
    plain.add_drill(NOW - timedelta(days=1), {"rpo_seconds": 1.5})

    assert plain.drills() == [{"rpo_seconds": 1.5}, {"rpo_seconds": 2.5}]


def test_a_damaged_drill_is_named(plain: Catalogue) -> None:
    plain.add_drill(datetime(2026, 1, 1, tzinfo=UTC), {"rpo_seconds": 2.5})
    flip(Path(plain.store.location, "drills/20260101T000000.000000Z.json"))

    with pytest.raises(BadBackupError, match=r"^drills/20260101T000000\.000000Z\.json is damaged"):
        plain.drills()


# -- forged records ----------------------------------------------------------------------------------------------------


def test_what_there_is_no_room_for_is_not_begun(plain: Catalogue, tmp_path: Path) -> None:
    backup = stored_backup(plain, a_backup())
    file = replace(backup.files[0], raw_size=2**60)

    with pytest.raises(BackupError, match=f"needs {2**60:,} bytes"):
        plain.fetch(backup, file, tmp_path / "dump")

    assert not (tmp_path / "dump").exists()


def test_a_record_without_end_is_not_read(plain: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b44_assets.backup.catalogue._LONGEST_RECORD", 100)
    backup = stored_backup(plain, a_backup())

    listing = plain.listing()

    assert listing.backups == ()
    assert listing.faults == (f"backups/{backup.id}/backup.json is too long to be a record",)


@pytest.mark.parametrize("name", ["wal/../../x.zst", "../x.zst", "/etc/x.zst", "wal//x.zst", "."])
def test_a_file_that_lies_elsewhere_is_none_of_a_backup(plain: Catalogue, name: str) -> None:
    backup = stored_backup(plain, a_backup())
    record = records.from_backup(backup)
    record["files"][0]["name"] = name

    with pytest.raises(BadBackupError, match="is no record of a backup"):
        records.to_backup(record, "backup.json")
