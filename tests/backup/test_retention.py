from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.backup.catalogue import Attempt, Catalogue, chain
from b44_assets.backup.lsn import Segment, lsn, position
from b44_assets.backup.model import Backup, BackupKind, WalFile
from b44_assets.backup.retention import Expiry, expire, plan
from b44_assets.backup.store import Store
from b44_assets.errors import B44Error
from tests.helpers.making import BAD, GOOD, NOW, SEGMENT_SIZE, SYSTEM, a_backup, archived, stored_backup

KEEP = 30
LOGICAL, BASE, INCREMENTAL = BackupKind.LOGICAL, BackupKind.BASE, BackupKind.INCREMENTAL


def at_segment(number: int) -> str:
    return lsn(number * SEGMENT_SIZE + 40)


def gone(backups: list[Backup], wal: list[WalFile] | None = None) -> list[Backup]:
    return list(plan(backups, {SYSTEM: wal or []}, KEEP, NOW).backups)


# -- what goes and what stays ------------------------------------------------------------------------------------------


def test_what_is_old_goes_and_what_is_not_stays() -> None:
    old, older = a_backup(days_ago=31), a_backup(days_ago=40)
    young = a_backup(days_ago=29)

    expiry = plan([old, young, older], {}, KEEP, NOW)

    assert expiry.backups == (older, old)
    assert expiry.kept == {}


def test_the_last_good_backup_of_each_kind_stays_and_it_is_said_why() -> None:
    logical, base = a_backup(LOGICAL, 100), a_backup(BASE, 200)
    unverified, failed = a_backup(LOGICAL, 20, verification=None), a_backup(BASE, 10, verification=BAD)

    expiry = plan([base, logical, unverified, failed], {}, KEEP, NOW)

    assert expiry.backups == ()
    assert expiry.kept == {base.id: "the last good base backup", logical.id: "the last good logical backup"}


def test_where_none_is_good_the_newest_stays() -> None:
    older, newer = a_backup(days_ago=50, verification=None), a_backup(days_ago=40, verification=BAD)

    expiry = plan([older, newer], {}, KEEP, NOW)

    assert expiry.backups == (older,)
    assert expiry.kept == {newer.id: "the newest logical backup, and none was found good"}


def test_each_database_and_each_cluster_has_a_last_good_backup() -> None:
    backups = [
        a_backup(days_ago=60, database="shop"),
        a_backup(days_ago=50, database="blog"),
        a_backup(days_ago=40, system="42"),
        a_backup(days_ago=1),
    ]

    assert gone(backups) == []


def test_the_last_good_chain_stays_as_a_whole() -> None:
    base = a_backup(BASE, 90)
    middle = a_backup(INCREMENTAL, 80, parent=base.id, verification=None)
    last = a_backup(INCREMENTAL, 70, parent=middle.id)
    newer_base = a_backup(BASE, 60)

    expiry = plan([base, middle, last, newer_base], {}, KEEP, NOW)

    assert expiry.backups == ()
    assert expiry.kept == {
        base.id: f"{last.id} needs it",
        middle.id: f"{last.id} needs it",
        last.id: "the last good incremental backup",
        newer_base.id: "the last good base backup",
    }


def test_what_a_young_incremental_backup_needs_stays() -> None:
    base, other = a_backup(BASE, 45), a_backup(BASE, 2)
    young = a_backup(INCREMENTAL, 5, parent=base.id, verification=None)

    assert gone([base, young, other]) == []


def test_the_base_from_which_the_oldest_time_that_is_kept_is_recovered_stays_where_there_is_wal() -> None:
    bases = [a_backup(BASE, days, start_lsn=at_segment(100 - days)) for days in (44, 37, 23, 16)]
    wal = [archived(number) for number in range(50, 101)]

    with_wal = plan(bases, {SYSTEM: wal}, KEEP, NOW)

    assert with_wal.backups == (bases[0],)
    assert with_wal.kept == {bases[1].id: "recovery to a time that is to be kept begins with it"}
    assert gone(bases) == bases[:2]


def test_wal_goes_up_to_the_start_of_the_oldest_kept_base() -> None:
    bases = [
        a_backup(BASE, days, start_lsn=at_segment(number)) for days, number in ((60, 10), (40, 20), (20, 30), (1, 40))
    ]
    files = [archived(number, timeline) for number in (5, 10, 19, 20, 21, 45) for timeline in (1, 2)]
    history = WalFile("00000002.history", 40, "0" * 64, f"wal/{SYSTEM}/history/00000002.history-{'0' * 64}.zst")

    expiry = plan(bases, {SYSTEM: [*files, history]}, KEEP, NOW)

    assert [Segment.named(file.name, SEGMENT_SIZE).number for file in expiry.wal] == [5, 5, 10, 10, 19, 19]


def test_wal_of_a_cluster_without_a_base_backup_stays() -> None:
    wal = {SYSTEM: [archived(1)], "42": [archived(2)]}

    expiry = plan([a_backup(BASE, 1, start_lsn=at_segment(9)), a_backup(LOGICAL, 1, system="42")], wal, KEEP, NOW)

    assert expiry.wal == (archived(1),)


def test_nothing_goes_while_a_record_cannot_be_read() -> None:
    old, older = a_backup(days_ago=31), a_backup(days_ago=40)
    base = a_backup(BASE, 1, start_lsn=at_segment(9))

    expiry = plan([old, older, base], {SYSTEM: [archived(1)]}, KEEP, NOW, unreadable=True)

    assert (expiry.backups, expiry.wal) == ((), ())
    assert set(expiry.kept) == {old.id, older.id}


def test_abandoned_attempts_and_unfinished_files_go_after_three_days() -> None:
    ages = {"old": NOW - timedelta(hours=73), "new": NOW - timedelta(hours=71)}
    attempts = [Attempt(name, LOGICAL, began_at, 7) for name, began_at in ages.items()]

    expiry = plan([], {}, KEEP, NOW, attempts=attempts, unfinished=ages)

    assert [attempt.id for attempt in expiry.attempts] == ["old"]
    assert expiry.unfinished == ("old",)


def test_to_keep_for_no_day_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one day"):
        plan([], {}, 0, NOW)


# -- whatever there is -------------------------------------------------------------------------------------------------


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[Backup], list[WalFile]]:
    """Any history of backups: good or not, with chains over any of the physical ones, and an archive with any holes."""
    backups: list[Backup] = []
    ages = draw(st.lists(st.floats(0, 100), max_size=14, unique=True))
    for number, age in enumerate(sorted(ages, reverse=True)):
        parents = [backup.id for backup in backups if backup.kind is not LOGICAL]
        kind = draw(st.sampled_from((LOGICAL, BASE, INCREMENTAL) if parents else (LOGICAL, BASE)))
        start = at_segment(int(200 - 2 * age))
        backups.append(
            a_backup(
                kind,
                age,
                parent=draw(st.sampled_from(parents)) if kind is INCREMENTAL else None,
                verification=draw(st.sampled_from((GOOD, BAD, None))),
                start_lsn=start,
                stop_lsn=start,
                number=number,
            )
        )
    wal = draw(st.sets(st.tuples(st.integers(0, 210), st.integers(1, 3)), max_size=30))
    return backups, [archived(number, timeline) for number, timeline in sorted(wal)]


@given(catalogues(), st.integers(1, 60))
def test_whatever_goes_nothing_that_is_needed_does(made: tuple[list[Backup], list[WalFile]], keep_days: int) -> None:
    backups, wal = made
    expiry = plan(backups, {SYSTEM: wal}, keep_days, NOW)
    staying = [backup for backup in backups if backup not in expiry.backups]
    since = NOW - timedelta(days=keep_days)

    # Only what is old goes, and of what is old each that stays has a reason.
    assert all(backup.ended_at < since for backup in expiry.backups)
    assert set(expiry.kept) == {backup.id for backup in staying if backup.ended_at < since}
    for kind in BackupKind:
        before = [backup for backup in backups if backup.kind is kind]
        after = [backup for backup in staying if backup.kind is kind]
        # The last good one stays, or the newest where none is good.
        candidates = [backup for backup in before if backup.good] or before
        assert not candidates or max(candidates, key=lambda backup: backup.ended_at) in after
    for backup in staying:
        # A chain that was whole is whole.
        try:
            links = chain(backup, backups)
        except B44Error:
            continue
        assert chain(backup, staying) == links
    # No WAL goes from the start of any physical backup that stays.
    starts = [position(backup.start_lsn) // SEGMENT_SIZE for backup in staying if backup.start_lsn is not None]
    kept_wal = Counter(wal) - Counter(expiry.wal)
    needed = [file for file in wal if starts and Segment.named(file.name, SEGMENT_SIZE).number >= min(starts)]
    assert not Counter(needed) - kept_wal
    assert starts or not expiry.wal
    # To any time that is to be kept, a recovery that was possible still is.
    for moment in (since, since + timedelta(days=keep_days / 2), NOW):
        able = [backup for backup in backups if backup.kind is BASE and backup.good and backup.ended_at <= moment]
        if wal and able:
            assert max(able, key=lambda backup: backup.ended_at) in staying


@given(catalogues(), st.integers(1, 60))
def test_once_it_is_done_there_is_nothing_more_to_do(made: tuple[list[Backup], list[WalFile]], keep_days: int) -> None:
    backups, wal = made
    expiry = plan(backups, {SYSTEM: wal}, keep_days, NOW)

    again = plan(
        [backup for backup in backups if backup not in expiry.backups],
        {SYSTEM: [file for file in wal if file not in expiry.wal]},
        keep_days,
        NOW,
    )

    # Without WAL there is nothing to recover to a time, and the base for that is not needed any more either.
    if set(wal) != set(expiry.wal):
        assert (again.backups, again.wal) == ((), ())


# -- doing it ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(Store.at(str(tmp_path / "store")))


def fill(catalogue: Catalogue) -> tuple[Backup, Backup, Backup]:
    base = stored_backup(catalogue, a_backup(BASE, 90, start_lsn=at_segment(5)))
    old = stored_backup(catalogue, a_backup(INCREMENTAL, 80, parent=base.id, start_lsn=at_segment(6)))
    new = stored_backup(catalogue, a_backup(BASE, 1, start_lsn=at_segment(9)))
    newest = stored_backup(catalogue, a_backup(INCREMENTAL, 0.5, parent=new.id, start_lsn=at_segment(10)))
    for number in (4, 9):
        catalogue.store.put(archived(number).path, io.BytesIO(b"sealed"))
    assert newest.good
    return base, old, new


def test_a_dry_run_says_what_would_go_and_touches_nothing(catalogue: Catalogue) -> None:
    base, old, _ = fill(catalogue)
    before = catalogue.store.names()

    expiry = expire(catalogue, KEEP, NOW, dry_run=True)

    assert [backup.id for backup in expiry.backups] == [old.id]
    assert base.id in expiry.kept
    assert catalogue.store.names() == before


def test_what_may_go_is_gone_with_all_that_it_was_made_of(catalogue: Catalogue) -> None:
    base, old, new = fill(catalogue)
    catalogue.new_id(LOGICAL, NOW - timedelta(days=4))
    told: list[str] = []

    expire(catalogue, KEEP, NOW, progress=told.append)

    assert [backup.id for backup in catalogue.backups()][:2] == [base.id, new.id]
    assert not catalogue.store.names(f"backups/{old.id}")
    assert catalogue.listing().attempts == ()
    assert list(catalogue.store.names("wal/")) == [archived(9).path]
    assert told == [old.id, "20261122T151500Z-logical", archived(4).path]


def test_killed_in_the_middle_it_leaves_no_backup_without_its_files(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in (90, 80, 70, 1):
        stored_backup(catalogue, a_backup(days_ago=days), {"a.tar": b"x", "roles.sql": b"y"})
    remove = type(catalogue.store).remove
    for kills in range(1, 12):
        calls = 0

        def dying(store: Store, path: str) -> None:
            nonlocal calls
            calls += 1
            if calls == kills:  # noqa: B023
                raise KeyboardInterrupt
            remove(store, path)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(type(catalogue.store), "remove", dying)
            expire(catalogue, KEEP, NOW)
            raise KeyboardInterrupt
        assert [fault for backup in catalogue.backups() for fault in catalogue.examine(backup)] == []

    expire(catalogue, KEEP, NOW)
    assert len(catalogue.backups()) == 1
    assert len(catalogue.store.names()) == 5


def test_a_plan_tells_how_much_becomes_free() -> None:
    backup = replace(a_backup(days_ago=40), files=())
    expiry = Expiry((backup,), (Attempt("a", LOGICAL, NOW, 7),), (archived(1),), (), {})

    assert expiry.size == 107


def test_the_archive_of_a_migration_stays_however_old_and_whatever_came_after() -> None:
    old = a_backup(BackupKind.MIGRATION, 4000)
    newer = a_backup(BackupKind.MIGRATION, 3)
    expiry = plan([old, newer], {}, 1, NOW)
    assert (expiry.backups, set(expiry.kept)) == ((), {old.id, newer.id})
