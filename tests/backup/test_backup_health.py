from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from b44_assets.backup.catalogue import Attempt
from b44_assets.backup.health import (
    fresh,
    nothing_failed,
    readable,
    shipping,
    verified,
    whole_chains,
    whole_wal,
)
from b44_assets.backup.lsn import lsn, position
from b44_assets.backup.model import Backup, BackupKind
from b44_assets.backup.wal_spool import Waiting
from tests.helpers.making import BAD, GOOD, NOW, SEGMENT_SIZE, SYSTEM, a_backup, archived

LOGICAL, BASE, INCREMENTAL = BackupKind.LOGICAL, BackupKind.BASE, BackupKind.INCREMENTAL
DAY = timedelta(days=1)


def test_a_new_good_backup_of_each_expected_kind_is_well() -> None:
    backups = [a_backup(LOGICAL, 0.5), a_backup(BASE, 6), a_backup(LOGICAL, 9)]

    health = fresh(backups, {LOGICAL: DAY, BASE: 7 * DAY}, NOW)

    assert health.ok
    assert health.lines == (
        "the newest good logical backup is 12 hours old",
        "the newest good base backup is 6 days old",
    )


def test_a_new_backup_that_is_not_good_does_not_count() -> None:
    backups = [
        a_backup(LOGICAL, 3),
        a_backup(LOGICAL, 0.1, verification=None),
        a_backup(LOGICAL, 0.2, verification=BAD),
    ]

    health = fresh(backups, {LOGICAL: DAY, BASE: DAY}, NOW)

    assert not health.ok
    assert health.lines == (
        "the newest good logical backup is 3 days old; at most 24 hours are allowed",
        "there is no good base backup",
    )


def test_a_record_that_cannot_be_read_is_not_well() -> None:
    assert readable([]).ok
    assert not readable(["backups/x/backup.json is damaged"]).ok


def test_a_broken_chain_is_named() -> None:
    base = a_backup(BASE, 3)
    whole = a_backup(INCREMENTAL, 2, parent=base.id)
    broken = a_backup(INCREMENTAL, 1, parent="20260101T000000Z-base")

    assert whole_chains([base, whole]).ok
    health = whole_chains([base, whole, broken])
    assert not health.ok
    assert health.lines == (
        f"the chain of {broken.id} is broken at {broken.id}: its parent 20260101T000000Z-base is missing",
    )


def test_each_backup_that_is_not_proven_is_named() -> None:
    good, unverified, failed = (
        a_backup(days_ago=3),
        a_backup(days_ago=2, verification=None),
        a_backup(days_ago=1, verification=BAD),
    )

    assert verified([good], DAY, NOW).ok
    health = verified([good, unverified, failed], DAY, NOW)
    assert not health.ok
    assert health.lines == (
        f"{unverified.id} was never verified",
        f"{failed.id} did not hold when it was verified: table public.posts: 4 rows instead of 5",
    )


def test_of_no_backup_nothing_good_is_said() -> None:
    health = verified([], DAY, NOW)

    assert not health.ok
    assert health.lines == ("the store holds no backup that can be read: take one, by `b44 backup`",)


def test_of_each_kind_the_newest_good_backup_is_verified_again() -> None:
    old_proof = replace(GOOD, verified_at=NOW - 10 * DAY)
    older, newer = a_backup(days_ago=20, verification=old_proof), a_backup(days_ago=10, verification=old_proof)

    health = verified([newer, older], 7 * DAY, NOW)

    assert not health.ok
    assert health.lines == (f"{newer.id} was last verified 10 days ago; at most 7 days are allowed",)


def test_an_attempt_that_came_to_nothing_is_named_until_a_backup_of_its_kind_follows() -> None:
    attempt = Attempt("20261126T051500Z-logical", LOGICAL, NOW - timedelta(hours=10), 5)
    before = a_backup(LOGICAL, 1)
    other_kind, after = a_backup(BASE, 0.1), a_backup(LOGICAL, 0.1)

    health = nothing_failed([before, other_kind], [attempt], NOW, timedelta(hours=2))

    assert not health.ok
    assert health.lines == (f"{attempt.id} was begun 10 hours ago and never completed, and no logical backup since",)
    assert nothing_failed([before, after], [attempt], NOW, timedelta(hours=2)).ok


def test_a_backup_that_is_being_taken_is_no_failure() -> None:
    attempt = Attempt("20261126T151000Z-base", BASE, NOW - timedelta(minutes=5), 5)

    assert nothing_failed([], [attempt], NOW, timedelta(hours=2)).ok


# -- the archive -------------------------------------------------------------------------------------------------------


def base_at(number: int, days_ago: float) -> Backup:
    at = lsn(number * SEGMENT_SIZE + 40)
    return a_backup(BASE, days_ago, start_lsn=at, stop_lsn=at)


def test_an_archive_without_a_gap_is_well() -> None:
    files = {SYSTEM: [archived(number) for number in range(3, 9)]}

    assert whole_wal([base_at(3, 2), base_at(6, 1)], files, {}).ok


def test_a_gap_is_named() -> None:
    files = {SYSTEM: [archived(number) for number in (3, 4, 6, 7, 9)]}

    health = whole_wal([base_at(3, 2), base_at(7, 1)], files, {})

    assert not health.ok
    assert health.lines == (
        f"the WAL archive of cluster {SYSTEM} lacks 000000010000000000000005, 000000010000000000000008",
    )


def test_a_wide_gap_is_told_in_a_line() -> None:
    health = whole_wal([base_at(3, 1)], {SYSTEM: [archived(3), archived(1000)]}, {})

    assert health.lines[0].endswith("000000010000000000000008 and 991 more")


def test_what_was_before_the_archive_was_begun_is_no_gap_except_after_the_newest_base() -> None:
    files = {SYSTEM: [archived(number) for number in range(5, 9)]}

    assert whole_wal([base_at(1, 3), base_at(6, 1)], files, {}).ok
    assert not whole_wal([base_at(1, 3)], files, {}).ok


def test_a_new_timeline_is_followed() -> None:
    files = {SYSTEM: [archived(3), archived(4), archived(5, 2), archived(6, 2)]}
    histories = {SYSTEM: {2: [(1, position("0/500100"))]}}

    assert whole_wal([base_at(3, 1)], files, histories).ok


def test_wal_without_a_base_is_not_well_and_no_wal_is() -> None:
    assert not whole_wal([a_backup(LOGICAL)], {SYSTEM: [archived(3)]}, {}).ok
    assert whole_wal([base_at(3, 1)], {}, {}).ok


def test_one_is_told_of_in_the_singular() -> None:
    base = a_backup(BASE, 3)
    assert whole_chains([base, a_backup(INCREMENTAL, 2, parent=base.id)]).lines == (
        "1 incremental backup has all that is needed",
    )
    assert verified([base], DAY, NOW).lines == ("1 backup was restored and found equal to the source",)
    assert whole_wal([base_at(3, 1)], {SYSTEM: [archived(3)]}, {}).lines[0].endswith("has no gap in 1 file")
    assert shipping(Waiting(1, SEGMENT_SIZE, NOW), DAY, NOW).lines == ("1 WAL file waits to be taken to the store",)


def test_wal_that_waits_for_too_long_is_not_well() -> None:
    longest = timedelta(minutes=10)
    late = Waiting(3, 3 * SEGMENT_SIZE, NOW - timedelta(minutes=30))

    assert shipping(Waiting(0, 0, None), longest, NOW).ok
    assert shipping(replace(late, oldest=NOW - timedelta(minutes=9)), longest, NOW).ok
    health = shipping(late, longest, NOW)
    assert not health.ok
    assert health.lines == (
        "3 WAL files wait to be taken to the store, the oldest for 30 minutes; at most 10 minutes are allowed",
    )
