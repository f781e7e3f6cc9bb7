"""Sensors: which run each asks for, that nothing new costs none, and what the runs then touch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from b44_assets.errors import ExportError
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.code_locations import USERS, Place, Template, object_id, place_of, post, posts, user, write
from tests.helpers.databases import template_once

ALL_MONTHS = {"2026-01": 4, "2026-02": 4, "2026-03": 4, "2026-05": 4}


def keys_of(request: dg.RunRequest) -> set[str]:
    return {key.to_user_string() for key in request.asset_selection or ()}


def months_of(request: dg.RunRequest) -> tuple[str, str]:
    return request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"]


def planned_cursor(place: Place) -> str:
    """The cursor of `changed_exports` once it has looked at the folder."""
    return place.tick("changed_exports").cursor


def request_after_change(place: Place) -> dg.RunRequest:
    """The run that `changed_exports` asks for where it is turned on after a file has changed."""
    [request] = place.tick("changed_exports", planned_cursor(place)).run_requests
    return request


def test_an_export_that_is_staged_as_it_is_costs_no_run(migrated: Place) -> None:
    first = migrated.tick("changed_exports")
    assert (first.run_requests, first.skip_message) == ([], "no export file has changed")
    assert migrated.tick("changed_exports", first.cursor).run_requests == []


def test_a_changed_file_asks_for_its_entity_and_no_other(migrated: Place) -> None:
    cursor = planned_cursor(migrated)
    write(migrated.export / "User.jsonl", [user(n) for n in range(USERS + 1)])
    seen = migrated.tick("changed_exports", cursor)
    assert seen.run_requests == []
    assert seen.skip_message == "changed, and taken once they stay the same: users"
    [request] = migrated.tick("changed_exports", seen.cursor).run_requests
    assert request.job_name == "delta"
    assert keys_of(request) == {"base44/users", "users", "monitoring/pending_work"}
    result = migrated.run(request)
    assert result.success
    assert migrated.execute("select count(*) from users where email = 'u6@example.org'") == [(1,)]
    assert {e.asset_key.to_user_string() for e in result.get_asset_check_evaluations()} == {"users"}


def test_a_file_that_was_taken_is_not_taken_again(migrated: Place) -> None:
    cursor = planned_cursor(migrated)
    write(migrated.export / "User.jsonl", [user(n) for n in range(USERS + 1)])
    taken = migrated.tick("changed_exports", migrated.tick("changed_exports", cursor).cursor)
    assert len(taken.run_requests) == 1
    assert migrated.tick("changed_exports", taken.cursor).run_requests == []


def test_a_file_that_still_grows_is_waited_for(migrated: Place) -> None:
    cursor = planned_cursor(migrated)
    for number in range(1, 4):
        write(migrated.export / "User.jsonl", [user(n) for n in range(USERS + number)])
        tick = migrated.tick("changed_exports", cursor)
        assert tick.run_requests == []
        cursor = tick.cursor
    assert len(migrated.tick("changed_exports", cursor).run_requests) == 1


def test_changed_posts_run_again_in_the_months_they_touch_only(migrated: Place) -> None:
    added = [post(90, "2026-02"), post(91, "2026-03"), post(92, "2026-06")]
    cursor = planned_cursor(migrated)
    write(migrated.export / "Post.jsonl", posts() + added)
    seen = migrated.tick("changed_exports", cursor)
    [request] = migrated.tick("changed_exports", seen.cursor).run_requests
    assert keys_of(request) == {"base44/posts", "monitoring/pending_work"}
    assert migrated.run(request).success
    assert migrated.months() == ALL_MONTHS

    found = migrated.tick("pending_work")
    assert [(keys_of(r), months_of(r)) for r in found.run_requests] == [
        ({"posts"}, ("2026-02", "2026-03")),
        ({"posts"}, ("2026-06", "2026-06")),
    ]
    assert all(migrated.run(r).success for r in found.run_requests)
    assert migrated.months() == ALL_MONTHS | {"2026-02": 5, "2026-03": 5, "2026-06": 1}
    assert migrated.said() == {"2026-02": 5, "2026-03": 5, "2026-06": 1}
    assert migrated.tick("pending_work", found.cursor).run_requests == []


def test_posts_of_a_user_who_came_later_follow_by_themselves(migrated: Place) -> None:
    write(migrated.export / "Post.jsonl", [*posts(), post(90, "2026-02", user_id=object_id(USERS))])
    assert migrated.run(request_after_change(migrated)).success
    assert migrated.tick("pending_work").run_requests == []
    write(migrated.export / "User.jsonl", [user(n) for n in range(USERS + 1)])
    assert migrated.run(request_after_change(migrated)).success
    [request] = migrated.tick("pending_work").run_requests
    assert months_of(request) == ("2026-02", "2026-02")


def test_where_nothing_was_migrated_everything_is(empty: Place) -> None:
    seen = empty.tick("changed_exports")
    [request] = empty.tick("changed_exports", seen.cursor).run_requests
    assert (request.job_name, request.asset_selection) == ("migrate_everything", None)
    assert months_of(request)[0] == "2025-10"


def test_changed_files_wait_for_a_run_that_is_under_way(migrated: Place) -> None:
    seen = planned_cursor(migrated)
    write(migrated.export / "User.jsonl", [user(n) for n in range(USERS + 1)])
    cursor = migrated.tick("changed_exports", seen).cursor
    job = migrated.definitions.resolve_job_def("migrate_everything")
    run = migrated.instance.create_run_for_job(job)
    tick = migrated.tick("changed_exports", cursor)
    assert tick.run_requests == []
    assert f"run {run.run_id} is under way" in tick.skip_message
    migrated.instance.report_run_failed(run)
    assert len(migrated.tick("changed_exports", cursor).run_requests) == 1


def test_ten_thousand_files_cost_a_small_cursor_and_one_run_for_a_new_one(migrated: Place) -> None:
    for number in range(10_000):
        (migrated.export / f"Thing{number}.jsonl").touch()
    cursor = planned_cursor(migrated)
    assert len(cursor) < 1_000
    nothing = migrated.tick("changed_exports", cursor)
    assert nothing.run_requests == [] and "Thing0.jsonl" in nothing.skip_message
    (migrated.export / "Thing0.jsonl").write_text('{"id": 1}\n')
    seen = migrated.tick("changed_exports", cursor)
    # Some of the files are named, so that whoever put them there sees it.
    assert "Thing0.jsonl" in seen.skip_message and len(seen.skip_message) < 1_000
    [request] = migrated.tick("changed_exports", seen.cursor).run_requests
    assert keys_of(request) == {"base44/other_entities", "monitoring/pending_work"}


def test_two_files_of_one_entity_make_the_tick_fail_and_name_them(migrated: Place) -> None:
    (migrated.export / "User.csv").write_text("id\n")
    with pytest.raises(ExportError, match=r"User\.csv and User\.jsonl"):
        migrated.tick("changed_exports")


def plant_fault(place: Place, month: str) -> None:
    """Makes the batches of one month fail."""
    place.execute(
        """
        create function refuse() returns trigger language plpgsql as $$
        begin
          if to_char(new.created_at at time zone 'UTC', 'YYYY-MM') = tg_argv[0] then raise 'planted'; end if;
          return new;
        end $$
        """
    )
    place.execute(f"create trigger refuse before insert on posts for each row execute function refuse('{month}')")


def remove_fault(place: Place) -> None:
    place.execute("drop trigger refuse on posts")


def load_posts(place: Place, first: str = "2026-01", last: str = "2026-06") -> Any:
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return place.job("delta", tags, [dg.AssetKey("posts")])


@pytest.fixture(scope="session")
def failed_once(embedded: EmbeddedServer, template: Template) -> tuple[Template, Path]:
    """As `failed`, made once for all workers, with the folder of its Dagster instance."""
    folder = embedded.home / "dagster-failed"
    export, home = folder / "export", folder / "instance"

    def fail(url: str) -> None:
        home.mkdir(parents=True)
        shutil.copytree(template.export, export)
        with dg.DagsterInstance.local_temp(str(home)) as instance:
            place = place_of(url, export, instance)
            write(export / "Post.jsonl", [*posts(), *(post(90 + n, f"2026-0{n}") for n in range(1, 7))])
            assert place.job("delta", assets=[dg.AssetKey(["base44", "posts"])]).success
            plant_fault(place, "2026-03")
            assert not load_posts(place).success

    made = template_once(embedded.url("postgres"), "dagster_failed", fail, of=template.database)
    return Template(made, export), home


@pytest.fixture
def failed(
    failed_once: tuple[Template, Path], copied: Callable[[Template, dg.DagsterInstance], Place], tmp_path: Path
) -> Generator[Place]:
    """March failed, the other months of the range did not."""
    template, home = failed_once
    shutil.copytree(home, tmp_path / "instance")
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        yield copied(template, instance)


def statuses(place: Place) -> dict[str, str]:
    months = place.definitions.resolve_assets_def("posts").partitions_def
    assert months is not None
    keys = [f"2026-0{n}" for n in range(1, 7)]
    found = place.instance.get_status_by_partition(dg.AssetKey("posts"), keys, months) or {}
    return {key: "" if status is None else status.value for key, status in found.items()}


def test_a_failed_month_is_told_apart_and_keeps_no_other_from_being_loaded(failed: Place) -> None:
    assert failed.months() == {"2026-01": 5, "2026-02": 5, "2026-03": 4, "2026-04": 1, "2026-05": 5, "2026-06": 1}
    assert statuses(failed) == {f"2026-0{n}": "FAILED" if n == 3 else "MATERIALIZED" for n in range(1, 7)}
    assert failed.said() == {month: rows for month, rows in failed.months().items() if month != "2026-03"}


def test_a_failed_month_runs_again_alone_until_it_is_in(failed: Place) -> None:
    [request] = failed.tick("failed_batches").run_requests
    assert (keys_of(request), months_of(request)) == ({"posts"}, ("2026-03", "2026-03"))
    remove_fault(failed)
    assert failed.run(request).success
    assert failed.months()["2026-03"] == 5
    assert failed.said() == failed.months()
    assert failed.tick("failed_batches").run_requests == []


def test_what_fails_each_time_is_run_again_a_bounded_number_of_times(failed: Place) -> None:
    keys: list[str | None] = []
    for _ in range(10):
        requests = failed.tick("failed_batches").run_requests
        if not requests:
            break
        # The daemon starts one run for each key, however often a tick gives it.
        assert [r.run_key for r in failed.tick("failed_batches").run_requests] == [requests[0].run_key]
        keys.append(requests[0].run_key)
        assert not failed.run(requests[0]).success
    assert (len(keys), len(set(keys))) == (3, 3)
    assert "manual action needed: posts 2026-03" in failed.tick("failed_batches").skip_message
    assert "planted" in failed.tick("failed_batches").skip_message


def test_a_fault_of_every_month_is_not_taken_for_one_of_months(migrated: Place) -> None:
    write(migrated.export / "Post.jsonl", [*posts(), *(post(90 + n, f"2026-0{n}") for n in range(1, 10))])
    assert migrated.job("delta", assets=[dg.AssetKey(["base44", "posts"])]).success
    migrated.execute("create function refuse() returns trigger language plpgsql as $$ begin raise 'planted'; end $$")
    migrated.execute("create trigger refuse before insert on posts for each row execute function refuse()")
    assert not load_posts(migrated, last="2026-09").success
    tried = migrated.execute(
        "select count(distinct partition_key) from migration.migration_log where status = 'failed'"
    )
    assert tried[0][0] < 9


def test_rows_in_a_default_partition_are_moved(migrated: Place) -> None:
    assert migrated.tick("default_partitions").run_requests == []
    migrated.execute(
        "insert into posts (user_id, created_by, title, slug, content, created_at)"
        " select id, id, 'Far ahead', 'far-ahead', 'Some content', '2040-01-01' from users limit 1"
    )
    found = migrated.tick("default_partitions")
    [request] = found.run_requests
    assert (request.job_name, keys_of(request)) == ("manage_partitions", {"posts_partitions"})
    assert migrated.tick("default_partitions", found.cursor).run_requests == []
    assert migrated.run(request).success
    assert migrated.execute("select count(*) from posts_default") == [(0,)]
    assert json.loads(migrated.tick("default_partitions", found.cursor).cursor) == {}


def test_sensors_say_so_where_there_is_nothing_to_look_at(empty: Place) -> None:
    for name in ("pending_work", "failed_batches", "default_partitions", "interrupted_runs"):
        tick = empty.tick(name)
        assert (tick.run_requests, bool(tick.skip_message)) == ([], True)


def test_without_a_folder_of_exports_the_sensor_says_what_to_set(empty: Place, tmp_path: Path) -> None:

    place = Place(empty.settings.model_copy(update={"export_dir": None}), empty.export, empty.instance)
    assert place.tick("changed_exports").skip_message == "B44_EXPORT_DIR is not set"


def test_the_schema_is_made_without_any_record_and_no_table_counts_as_loaded(empty: Place) -> None:
    result = empty.job("schema_only")
    assert result.success
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert {"posts_search_indexes", "posts_partitions", "users_constraints", "user_post_stats"} <= made
    assert not made & {"users", "posts", "base44/users"}
    assert empty.execute("select count(*) from posts") == [(0,)]


def test_a_file_changed_with_its_old_size_and_time_is_taken(migrated: Place) -> None:
    path = migrated.export / "User.jsonl"
    status = path.stat()
    path.write_text(path.read_text().replace("u1@", "v1@"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    seen = migrated.tick("changed_exports")
    [request] = migrated.tick("changed_exports", seen.cursor).run_requests
    assert keys_of(request) == {"base44/users", "users", "monitoring/pending_work"}
