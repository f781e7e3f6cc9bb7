from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.backup import wal_archive as archive
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.encryption import Key, seal
from b44_assets.backup.lsn import Segment, lsn, position
from b44_assets.backup.model import WalFile
from b44_assets.backup.store import Store
from b44_assets.backup.wal_archive import fetch, gaps, histories, systems, wal_files
from b44_assets.backup.wal_spool import archive_command, ship, waiting
from b44_assets.errors import BackupError, BadBackupError
from tests.helpers import disks
from tests.helpers.making import SEGMENT_SIZE, SYSTEM, a_segment, archived

KEY = Key.generate()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Catalogue:
    return Catalogue(Store.at(str(tmp_path / "store")), request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Catalogue:
    return Catalogue(Store.at(str(tmp_path / "store")))


def spooled(spool: Path, number: int, timeline: int = 1, **how: str | bytes) -> Path:
    name, data = a_segment(number, timeline, **how)  # pyright: ignore[reportArgumentType]
    (spool / name).write_bytes(data)
    return spool / name


def stored(catalogue: Catalogue, *numbers: int, timeline: int = 1) -> None:
    spool = Path(catalogue.store.location).parent / "passing"
    spool.mkdir(exist_ok=True)
    for number in numbers:
        spooled(spool, number, timeline)
    ship(spool, catalogue, SYSTEM)


def names(catalogue: Catalogue) -> list[str]:
    return [file.name for file in wal_files(catalogue.store, SYSTEM)]


def path_of(catalogue: Catalogue, name: str) -> Path:
    (file,) = (file for file in wal_files(catalogue.store, SYSTEM) if file.name == name)
    return Path(catalogue.store.location, file.path)


# -- the server's command ----------------------------------------------------------------------------------------------


def archive_once(data_dir: Path, command: str, name: str) -> int:
    """Runs the command as the server does."""
    text = command.replace("%%", "\0").replace("%p", f"pg_wal/{name}").replace("%f", name).replace("\0", "%")
    return subprocess.run(["/bin/sh", "-c", text], cwd=data_dir, capture_output=True, check=False).returncode


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "pg_wal").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["spool", "a b", "it's 100%f", "-n", '"$(id)"'])
def test_a_segment_is_archived_and_no_name_of_the_folder_breaks_the_command(
    tmp_path: Path, data_dir: Path, name: str
) -> None:
    spool = tmp_path / name
    spool.mkdir()
    segment = spooled(data_dir / "pg_wal", 3)

    assert archive_once(data_dir, archive_command(spool), segment.name) == 0
    assert [file.name for file in spool.iterdir()] == [segment.name]
    assert (spool / segment.name).read_bytes() == segment.read_bytes()


def test_a_relative_spool_is_looked_for_from_the_data_directory(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "archive").mkdir()
    segment = spooled(data_dir / "pg_wal", 3)

    assert archive_once(data_dir, archive_command(Path("../archive")), segment.name) == 0
    assert (tmp_path / "archive" / segment.name).exists()


def test_the_same_segment_once_more_is_a_success(spool: Path, data_dir: Path) -> None:
    segment = spooled(data_dir / "pg_wal", 3)

    assert [archive_once(data_dir, archive_command(spool), segment.name) for _ in range(2)] == [0, 0]


def test_another_segment_under_the_same_name_is_refused_and_overwrites_nothing(spool: Path, data_dir: Path) -> None:
    segment = spooled(data_dir / "pg_wal", 3)
    mine = spooled(spool, 3, filling=b"mine")
    before = mine.read_bytes()

    # From 126 on the server would take it for a broken shell.
    assert 0 < archive_once(data_dir, archive_command(spool), segment.name) < 126
    assert mine.read_bytes() == before
    assert list(spool.iterdir()) == [mine]


def test_a_full_spool_is_a_failure_that_leaves_nothing_and_passes(tmp_path: Path, data_dir: Path) -> None:
    segment = spooled(data_dir / "pg_wal", 3)
    with disks.small(tmp_path / "small") as spool:
        ballast = spool / "ballast"
        ballast.write_bytes(bytes(3 * SEGMENT_SIZE // 2))

        assert 0 < archive_once(data_dir, archive_command(spool), segment.name) < 126
        assert list(spool.iterdir()) == [ballast]

        ballast.unlink()
        assert archive_once(data_dir, archive_command(spool), segment.name) == 0
        assert (spool / segment.name).read_bytes() == segment.read_bytes()


def test_a_missing_spool_is_a_failure(tmp_path: Path, data_dir: Path) -> None:
    segment = spooled(data_dir / "pg_wal", 3)

    assert 0 < archive_once(data_dir, archive_command(tmp_path / "nowhere"), segment.name) < 126


def test_a_command_that_is_killed_leaves_nothing_that_counts(spool: Path, data_dir: Path, plain: Catalogue) -> None:
    segment = spooled(data_dir / "pg_wal", 3)
    # Killed where it would give the file its name.
    killing = archive_command(spool).replace("ln ", "kill -9 $$; ln ")

    assert archive_once(data_dir, killing, segment.name) == -signal.SIGKILL
    assert waiting(spool).files == 0
    assert ship(spool, plain, SYSTEM).files == 0
    assert archive_once(data_dir, archive_command(spool), segment.name) == 0
    assert waiting(spool).files == 1


# -- shipping ----------------------------------------------------------------------------------------------------------


def test_what_is_spooled_goes_to_the_store_and_leaves_the_spool(spool: Path, catalogue: Catalogue) -> None:
    spooled(spool, 3)
    spooled(spool, 4)
    (spool / "00000002.history").write_text("1\t0/400000\tpromoted\n")
    (spool / "000000010000000000000003.00000028.backup").write_text("START WAL LOCATION: 0/300028\n")
    name, data = a_segment(5)
    (spool / f"{name}.partial").write_bytes(data)

    shipped = ship(spool, catalogue, SYSTEM)

    assert names(catalogue) == [
        "000000010000000000000003",
        "000000010000000000000003.00000028.backup",
        "000000010000000000000004",
        "000000010000000000000005.partial",
        "00000002.history",
    ]
    assert (shipped.files, shipped.refused, shipped.waiting.oldest) == (5, (), None)
    assert shipped.bytes == sum(catalogue.store.names("wal/").values())
    assert list(spool.iterdir()) == []
    assert systems(catalogue.store) == [SYSTEM]
    assert archive.examine(catalogue, wal_files(catalogue.store, SYSTEM)) == []


def test_what_is_not_finished_stays_in_the_spool(spool: Path, plain: Catalogue) -> None:
    for name in (".unfinished-000000010000000000000003-77", "notes.txt", "000000010000000000000003.tmp"):
        (spool / name).write_text("x")

    assert ship(spool, plain, SYSTEM).files == 0
    assert len(list(spool.iterdir())) == 3


def test_what_killed_commands_have_left_goes_once_it_is_old(spool: Path, plain: Catalogue) -> None:
    old, new = (spool / f".unfinished-00000001000000000000000{digit}-7" for digit in "34")
    for file in (old, new):
        file.write_text("x")
    os.utime(old, (time.time() - 7200, time.time() - 7200))

    ship(spool, plain, SYSTEM)

    assert list(spool.iterdir()) == [new]


def test_a_segment_of_another_cluster_is_refused_and_does_not_hold_up_the_others(spool: Path, plain: Catalogue) -> None:
    foreign = spooled(spool, 3, system="42")
    own = spooled(spool, 4)

    shipped = ship(spool, plain, SYSTEM)

    assert shipped.refused == (f"{foreign} belongs to another cluster (42) than the one that is backed up ({SYSTEM})",)
    assert names(plain) == [own.name]
    assert shipped.waiting.files == 1


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: os.truncate(file, 5000), f"is incomplete: 5000 of {SEGMENT_SIZE} bytes"),
        (lambda file: os.truncate(file, 0), "is no WAL segment: it has 0 bytes"),
        (lambda file: file.write_bytes(bytes(SEGMENT_SIZE)), "is no WAL segment: it does not begin like one"),
        (
            lambda file: file.write_bytes(a_segment(9)[1]),
            "is not the segment that its name says: it begins at 0/900000",
        ),
    ],
    ids=["truncated", "empty", "zeros", "renamed"],
)
def test_what_is_no_segment_is_refused_and_named(
    spool: Path, plain: Catalogue, spoil: Callable[[Path], object], why: str
) -> None:
    file = spooled(spool, 3)
    spoil(file)

    assert ship(spool, plain, SYSTEM).refused == (f"{file} {why}",)
    assert names(plain) == []


def test_the_same_segment_once_more_is_stored_once(spool: Path, catalogue: Catalogue) -> None:
    for _ in range(2):
        spooled(spool, 3)
        ship(spool, catalogue, SYSTEM)

    assert len(names(catalogue)) == 1
    assert list(spool.iterdir()) == []


def test_another_segment_of_the_same_name_is_refused_and_both_stay(spool: Path, catalogue: Catalogue) -> None:
    spooled(spool, 3)
    ship(spool, catalogue, SYSTEM)
    other = spooled(spool, 3, filling=b"another history")

    shipped = ship(spool, catalogue, SYSTEM)

    assert len(shipped.refused) == 1
    assert shipped.refused[0].startswith(f"{other}: the archive has another segment of that name, wal/{SYSTEM}/")
    assert other.exists()
    assert len(names(catalogue)) == 1


def test_a_segment_that_is_damaged_in_the_store_is_stored_anew(
    spool: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    segment = spooled(spool, 3)
    data = segment.read_bytes()
    ship(spool, catalogue, SYSTEM)
    os.truncate(path_of(catalogue, segment.name), 50)
    segment.write_bytes(data)

    assert ship(spool, catalogue, SYSTEM).refused == ()

    into = tmp_path / "into"
    into.mkdir()
    assert fetch(catalogue, SYSTEM, into, "0/300028", 1, SEGMENT_SIZE).faults == ()
    assert (into / segment.name).read_bytes() == data


@pytest.mark.parametrize("point", ["before the store has it", "after the store has it"])
def test_a_kill_at_any_point_loses_nothing_and_stores_nothing_twice(
    spool: Path, catalogue: Catalogue, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    segment = spooled(spool, 3)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(*((Store, "put", die) if point.startswith("before") else (Path, "unlink", die)))
        ship(spool, catalogue, SYSTEM)
    assert segment.exists()

    ship(spool, catalogue, SYSTEM)

    assert names(catalogue) == [segment.name]
    assert not segment.exists()


def test_a_store_that_is_full_leaves_the_segment_in_the_spool(tmp_path: Path, spool: Path) -> None:
    segment = spooled(spool, 3, filling=os.urandom(SEGMENT_SIZE // 2))
    with disks.small(tmp_path / "small", megabytes=1) as disk:
        catalogue = Catalogue(Store.at(str(disk / "store")))
        (disk / "ballast").write_bytes(bytes(700_000))

        with pytest.raises(BackupError, match="cannot be written: No space left on device"):
            ship(spool, catalogue, SYSTEM)
        assert segment.exists()
        assert names(catalogue) == []


def test_two_processes_do_not_ship_at_once(spool: Path, plain: Catalogue) -> None:
    program = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    spooled(spool, 3)
    command = [sys.executable, "-c", program, str(spool)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        thread = threading.Thread(target=ship, args=(spool, plain, SYSTEM))
        thread.start()
        thread.join(0.3)
        waited = thread.is_alive()
        holder.stdin.close()
        thread.join()

    assert waited
    assert len(names(plain)) == 1


def test_what_waits_is_told_with_its_age(spool: Path) -> None:
    old, new = spooled(spool, 3), spooled(spool, 4)
    os.utime(old, (1000, 1000))
    os.utime(new, (2000, 2000))

    found = waiting(spool)

    assert (found.files, found.bytes, found.oldest) == (2, 2 * SEGMENT_SIZE, datetime.fromtimestamp(1000, UTC))


def test_a_missing_spool_is_named(tmp_path: Path, plain: Catalogue) -> None:
    with pytest.raises(BackupError, match="nowhere cannot be read: No such file or directory"):
        ship(tmp_path / "nowhere", plain, SYSTEM)


# -- gaps --------------------------------------------------------------------------------------------------------------


def segment_names(*numbers: int, timeline: int = 1) -> list[str]:
    return [Segment(number, timeline).name(SEGMENT_SIZE) for number in numbers]


def test_a_whole_archive_has_no_gap() -> None:
    assert gaps([archived(number) for number in range(3, 30)], SEGMENT_SIZE, "0/300028", 1) == []


@given(first=st.integers(1, 5000), count=st.integers(2, 60), data=st.data())
def test_every_missing_segment_is_named_and_no_other(first: int, count: int, data: st.DataObject) -> None:
    # The last one cannot be missed: the archive would just end before.
    missing = data.draw(st.sets(st.integers(first, first + count - 2)))
    files = [archived(number) for number in range(first, first + count) if number not in missing]

    found = gaps(files, SEGMENT_SIZE, lsn(first * SEGMENT_SIZE + 40), 1)

    assert found == segment_names(*sorted(missing))


def test_what_is_before_the_start_is_not_missed() -> None:
    assert gaps([archived(5), archived(6)], SEGMENT_SIZE, "0/500028", 1) == []


def test_a_partial_segment_does_not_stand_for_a_whole_one() -> None:
    partial = archived(4)
    partial = WalFile(f"{partial.name}.partial", partial.size, partial.sha256, partial.path)

    assert gaps([archived(3), partial, archived(5)], SEGMENT_SIZE, "0/300028", 1) == segment_names(4)


def test_a_new_timeline_is_followed_from_the_segment_in_which_it_began() -> None:
    # Timeline 1 was left within segment 5; it went on to 9 elsewhere, which does not count.
    files = [*(archived(number) for number in (3, 4, 9)), *(archived(number, 2) for number in (5, 6, 8))]
    known = {2: [(1, position("0/500100"))]}

    assert gaps(files, SEGMENT_SIZE, "0/300028", 1, known) == segment_names(7, timeline=2)


def test_what_a_new_timeline_begins_with_is_missed_on_the_old_one() -> None:
    known = {2: [(1, position("0/500100"))]}

    assert gaps([archived(3)], SEGMENT_SIZE, "0/300028", 1, known) == segment_names(4)


def test_segments_of_another_size_are_told_apart() -> None:
    with pytest.raises(ValueError, match="is no name of a WAL segment of 16777216 bytes"):
        gaps([archived(300)], 16 * SEGMENT_SIZE, "0/300028", 1)


# -- fetching ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def into(tmp_path: Path) -> Generator[Path]:
    folder = tmp_path / "into"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_all_from_the_start_on_is_laid_as_it_was(catalogue: Catalogue, into: Path) -> None:
    stored(catalogue, 2, 3, 4, 5)

    fetched = fetch(catalogue, SYSTEM, into, "0/300028", 1, SEGMENT_SIZE)

    assert (fetched.timeline, fetched.segments, fetched.end_lsn, fetched.faults) == (1, 3, "0/600000", ())
    assert {file.name: file.read_bytes() for file in into.iterdir()} == dict(a_segment(number) for number in (3, 4, 5))
    # The rest of a segment that was left early takes up no space.
    assert all(file.stat().st_blocks * 512 < SEGMENT_SIZE for file in into.iterdir())


def test_no_more_is_laid_than_is_enough(plain: Catalogue, into: Path) -> None:
    stored(plain, 3, 4, 5)

    assert fetch(plain, SYSTEM, into, "0/300028", 1, SEGMENT_SIZE, until_lsn="0/400100").end_lsn == "0/500000"


def test_a_missing_segment_ends_it_and_is_named(catalogue: Catalogue, into: Path) -> None:
    stored(catalogue, 3, 4, 6)

    fetched = fetch(catalogue, SYSTEM, into, "0/300028", 1, SEGMENT_SIZE)

    assert fetched.end_lsn == "0/500000"
    assert fetched.faults == ("WAL segment 000000010000000000000005 is missing from the archive",)


@pytest.mark.parametrize("fault", ["flipped", "truncated"])
def test_a_damaged_segment_ends_it_and_is_named(catalogue: Catalogue, into: Path, fault: str) -> None:
    stored(catalogue, 3, 4, 5)
    (name,) = segment_names(4)
    path = path_of(catalogue, name)
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:] if fault == "flipped" else data[:-20])

    fetched = fetch(catalogue, SYSTEM, into, "0/300028", 1, SEGMENT_SIZE)

    assert (fetched.segments, fetched.end_lsn) == (1, "0/400000")
    assert len(fetched.faults) == 1
    assert name in fetched.faults[0]
    assert "damaged" in fetched.faults[0]
    assert [file.name for file in into.iterdir()] == segment_names(3)
    (named,) = archive.examine(Catalogue(catalogue.store), wal_files(catalogue.store, SYSTEM))
    assert named.startswith(f"WAL file {name} is damaged or truncated")


def test_a_segment_of_another_length_than_the_others_ends_it_and_is_named(plain: Catalogue, into: Path) -> None:
    stored(plain, 3)
    sealed = io.BytesIO()
    seal(io.BytesIO(b"short"), sealed, None)
    (name,) = segment_names(4)
    digest = hashlib.sha256(sealed.getvalue()).hexdigest()
    plain.store.put(f"wal/{SYSTEM}/{name[:16]}/{name}-{digest}.zst", io.BytesIO(sealed.getvalue()))

    fetched = fetch(plain, SYSTEM, into, "0/300028", 1, SEGMENT_SIZE)

    assert fetched.faults == (f"WAL segment {name} has 5 bytes instead of {SEGMENT_SIZE}",)
    assert [file.name for file in into.iterdir()] == segment_names(3)


def test_a_wrong_key_is_told_from_damage(tmp_path: Path, into: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    stored(Catalogue(store, KEY), 3)

    with pytest.raises(BackupError, match="is encrypted for another key"):
        fetch(Catalogue(store, Key.generate()), SYSTEM, into, "0/300028", 1, SEGMENT_SIZE)
    assert list(into.iterdir()) == []


def test_the_path_over_timelines_is_laid_with_its_histories(catalogue: Catalogue, into: Path, spool: Path) -> None:
    stored(catalogue, 3, 4, 5, 6)
    stored(catalogue, 5, 6, timeline=2)
    stored(catalogue, 4, timeline=3)
    (spool / "00000002.history").write_text("1\t0/500100\tpromoted\n")
    (spool / "00000003.history").write_text("1\t0/400100\tpromoted\n")
    ship(spool, catalogue, SYSTEM)

    fetched = fetch(catalogue, SYSTEM, into, "0/300028", 1, SEGMENT_SIZE, target_timeline=2)

    assert (fetched.timeline, fetched.end_lsn) == (2, "0/700000")
    assert sorted(file.name for file in into.iterdir()) == [
        *segment_names(3, 4),
        "00000002.history",
        *segment_names(5, 6, timeline=2),
    ]
    shutil.rmtree(into)
    into.mkdir()
    assert fetch(catalogue, SYSTEM, into, "0/300028", 1, SEGMENT_SIZE).timeline == 3
    with pytest.raises(BackupError, match="timeline 2 does not go on from 0/600000 on timeline 1"):
        fetch(catalogue, SYSTEM, into, "0/600000", 1, SEGMENT_SIZE, target_timeline=2)


def test_a_damaged_history_is_named(plain: Catalogue, spool: Path) -> None:
    (spool / "00000002.history").write_text("1\t0/500100\tpromoted\n")
    ship(spool, plain, SYSTEM)
    path = path_of(plain, "00000002.history")
    path.write_bytes(path.read_bytes()[:-3])

    with pytest.raises(BadBackupError, match=r"00000002\.history-[0-9a-f]{64}\.zst is damaged"):
        histories(plain, wal_files(plain.store, SYSTEM))


def test_an_archive_of_another_cluster_is_not_touched(plain: Catalogue, into: Path) -> None:
    stored(plain, 3)
    plain.store.put("wal/readme.txt", io.BytesIO(b"x"))

    assert fetch(plain, "42", into, "0/300028", 1, SEGMENT_SIZE).segments == 0
    assert systems(plain.store) == [SYSTEM]
