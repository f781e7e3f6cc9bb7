"""Indexes that repeat another, that nobody reads, and since when that is counted."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from b44_assets.maintenance.index_maintenance import IndexUsage, index_usage
from tests.helpers.waiting import eventually
from tests.helpers.watched import Watched


@pytest.fixture(autouse=True)
def _table(watched: Watched) -> Generator[None]:
    watched.execute("create table indexed as select g as id, g % 7 as kind from generate_series(1, 5000) g")
    watched.execute("create index indexed_id on indexed (id); create index indexed_kind on indexed (kind)")
    watched.execute("vacuum analyze indexed")
    yield
    watched.execute("drop table indexed")


def look(watched: Watched, role: str | None = None) -> IndexUsage:
    return index_usage(watched.session(role))


def test_an_index_that_repeats_another_is_told(watched: Watched) -> None:
    assert look(watched).passed
    watched.execute("create index indexed_twice on indexed (id)")
    watched.execute("create index indexed_half on indexed ((kind + 1)) where id >    3")
    watched.execute("create index indexed_again on public.indexed using btree ( (kind+1) ) where (id > 3)")
    watched.execute("create index indexed_other on indexed ((kind + 2)) where id > 3")
    usage = look(watched)
    assert not usage.passed
    assert usage.duplicates == (("indexed_again", "indexed_half"), ("indexed_id", "indexed_twice"))


def test_what_nobody_reads_is_told_with_the_moment_it_is_counted_from(watched: Watched) -> None:
    watched.execute("select pg_stat_reset()")
    [(reset,)] = watched.execute("select stats_reset from pg_stat_database where datname = current_database()")
    watched.execute("set enable_seqscan = off; select count(*) from indexed where id = 3")
    eventually(lambda: [index.name for index in look(watched).unused] == ["indexed_kind"])
    usage = look(watched)
    assert usage.since == reset
    assert f"{reset:%Y-%m-%d}" in usage.message()


def test_a_role_that_is_not_shown_statistics_is_told_that_bloat_is_not_known(watched: Watched) -> None:
    assert (look(watched).statistics_hidden, look(watched, "postgres").statistics_hidden) == (True, False)
    assert {index.bloat for index in look(watched).indexes} == {None}
    assert "not shown" in look(watched).message()


def test_an_index_that_is_locked_is_not_waited_for(watched: Watched) -> None:
    size = {index.name: index.size for index in look(watched).indexes}
    with watched.connect(autocommit=False) as conn:
        conn.execute("lock table indexed in access exclusive mode")
        conn.execute("reindex index indexed_id")
        # It would wait for a minute, and then fail.
        assert {index.name: index.size for index in look(watched).indexes}.keys() == size.keys()
        conn.rollback()
