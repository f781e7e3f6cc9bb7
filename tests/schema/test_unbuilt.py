"""Rows that make an index, a constraint or a view impossible: it fails alone, they are named, and once mended it is built."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from b44_assets.catalog import constraint_definitions
from b44_assets.schema.apply import apply
from b44_assets.schema.constraints import apply_constraints
from b44_assets.schema.health import constraints_valid, indexes_valid, view_equals_query, view_fresh
from b44_assets.schema.indexes import apply_indexes
from b44_assets.schema.online_ddl import SchemaChange
from b44_assets.schema.partition_checks import check_bounds
from b44_assets.schema.partitions import apply_partitions
from b44_assets.schema.views import apply_view
from b44_assets.session import Session
from tests.helpers.lock_waits import holds_up
from tests.helpers.waiting import eventually
from tests.schema.test_online_schema import changed, execute, spec, value

ROLES = "create index if not exists idx_users_role on users (role)"


def keys(session: Session, query: str) -> list[str]:
    with psycopg.connect(session.url) as conn:
        return [str(row[0]) for row in conn.execute(query.encode()).fetchall()]


def names(done: SchemaChange, name: str, rows: list[str]) -> bool:
    """Whether what is said of an object names some rows."""
    return all(row in done.failed[name] for row in rows)


@pytest.mark.parametrize("online", [True, False])
def test_an_index_that_some_rows_are_too_long_for_fails_alone_and_is_built_once_they_are_mended(
    loaded: Session, online: bool
) -> None:
    draw = random.Random(1)
    long = ["".join(chr(draw.randrange(0x4E00, 0x9F00)) for _ in range(6_000)) for _ in range(2)]
    ids = keys(loaded, "select id from posts order by created_at, id limit 2")
    with psycopg.connect(loaded.url, autocommit=True) as conn:
        for key, tag in zip(ids, long, strict=True):
            conn.execute("update posts set tags = array['a', %s] where id = %s", (tag, key))
    posts = spec(loaded, "posts_tags_indexes")
    done = apply_indexes(loaded, posts, online=online)
    assert (done.created, list(done.failed)) == ((), ["idx_posts_tags_gin"])
    assert names(done, "idx_posts_tags_gin", [*ids, "2 rows", "(tags)"])
    verdict = indexes_valid(loaded, "posts")
    assert not verdict.passed
    assert ids[0] in verdict.message()
    assert apply_indexes(loaded, posts, online=online).failed.keys() == {"idx_posts_tags_gin"}
    execute(
        loaded, f"update posts set tags = '{{a}}' where id = '{ids[0]}'", f"delete from posts where id = '{ids[1]}'"
    )
    done = apply_indexes(loaded, posts, online=online)
    assert not done.failed
    assert value(loaded, "select indisvalid from pg_index where indexrelid = 'idx_posts_tags_gin'::regclass")
    assert value(loaded, "select count(*) from pg_index where not indisvalid") == 0
    assert value(loaded, "select count(*) from migration.unbuilt") == 0
    assert not apply_indexes(loaded, posts, online=online).changed


def test_rows_that_are_deleted_stop_no_index_while_an_older_transaction_still_sees_them(loaded: Session) -> None:
    draw = random.Random(2)
    long = "".join(chr(draw.randrange(0x4E00, 0x9F00)) for _ in range(6_000))
    (key,) = keys(loaded, "select id from posts order by created_at, id limit 1")
    execute(loaded, f"update posts set tags = array['a', '{long}'] where id = '{key}'")
    posts = spec(loaded, "posts_tags_indexes")
    assert apply_indexes(loaded, posts, online=False).failed.keys() == {"idx_posts_tags_gin"}
    with psycopg.connect(loaded.url) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from posts")
        execute(loaded, f"delete from posts where id = '{key}'")
        # A concurrent build waits for transactions that are older than it; this one ends as soon as it is waited for.
        with psycopg.connect(loaded.url, autocommit=True) as control, ThreadPoolExecutor(1) as pool:
            done = pool.submit(apply_indexes, loaded, posts, online=False)
            eventually(lambda: holds_up(control, reader.info.backend_pid))
            reader.rollback()
            assert not done.result(timeout=60).failed
    assert value(loaded, "select indisvalid from pg_index where indexrelid = 'idx_posts_tags_gin'::regclass")


def test_one_index_of_a_file_fails_and_the_others_are_built(loaded: Session, tmp_path: Path) -> None:
    broken = changed(
        loaded, tmp_path, "indexes/users_account_indexes.sql", ROLES,
        "create index if not exists idx_users_role on users ((1 / (length(display_name) - 3)))",
    )  # fmt: skip
    ids = keys(loaded, "select id from users where id::text not like '%b44' order by id limit 1") or keys(
        loaded, "select id from users order by id desc limit 1"
    )
    execute(
        loaded,
        "update users set display_name = 'Long enough'",
        f"update users set display_name = 'Ann' where id = '{ids[0]}'",
    )
    done = apply_indexes(broken, spec(broken, "users_account_indexes"))
    assert set(done.created) == {"idx_users_created_at", "idx_users_created_by", "idx_users_updated_by"}
    assert names(done, "idx_users_role", [ids[0], "division by zero", "(display_name", "1 row:"])


@pytest.mark.parametrize("online", [True, False])
def test_rows_with_equal_keys_are_named(loaded: Session, tmp_path: Path, online: bool) -> None:
    broken = changed(
        loaded, tmp_path, "indexes/users_account_indexes.sql", ROLES + " where active = true;",
        "create unique index if not exists idx_users_role on users (lower(display_name)) where active = true;",
    )  # fmt: skip
    execute(loaded, "update users set display_name = id::text")
    ids = keys(loaded, "select id from users where active order by id limit 2")
    execute(
        loaded,
        *(
            f"update users set display_name = '{name}' where id = '{key}'"
            for key, name in zip(ids, ("ANN", "ann"), strict=True)
        ),
    )
    done = apply_indexes(broken, spec(broken, "users_account_indexes"), online=online)
    assert names(done, "idx_users_role", [*ids, "2 rows"])
    assert value(loaded, "select count(*) from pg_index where not indisvalid") == 0
    execute(loaded, f"update users set active = false where id = '{ids[0]}'")
    assert "idx_users_role" in apply_indexes(broken, spec(broken, "users_account_indexes"), online=online).created


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize(
    ("file", "name", "broken", "mend"),
    [
        ("posts_constraints", "chk_posts_title_length", "title = ' '", "title = 'A'"),
        ("posts_constraints", "fk_posts_category_id", "category_id = gen_random_uuid()", "category_id = null"),
        ("users_constraints", "fk_users_created_by", "created_by = gen_random_uuid()", "created_by = null"),
        ("events_constraints", "unique_event_per_day", "cancelled = false", "cancelled = true"),
    ],
)
def test_a_constraint_that_rows_break_fails_alone_and_is_proven_once_they_are_mended(
    loaded: Session, file: str, name: str, broken: str, mend: str, online: bool
) -> None:
    table = file.removesuffix("_constraints")
    (key,) = keys(loaded, f"select id from {table} order by created_at desc, id limit 1")
    if name == "unique_event_per_day":
        execute(
            loaded,
            f"delete from events where id <> '{key}'",
            "insert into events (user_id, event_date, created_by) select user_id, event_date, created_by from events",
        )
    execute(loaded, f"update {table} set {broken} where id = '{key}'")
    done = apply_constraints(loaded, spec(loaded, file), online=online)
    assert list(done.failed) == [name]
    assert names(done, name, [key])
    verdict = constraints_valid(loaded, table)
    assert not verdict.passed
    assert key in verdict.message()
    execute(loaded, f"update {table} set {mend} where id = '{key}'")
    assert not apply_constraints(loaded, spec(loaded, file), online=online).failed
    assert constraints_valid(loaded, table).passed


def test_rules_that_rows_break_hold_for_new_rows_and_the_others_for_all(loaded: Session) -> None:
    first, second = keys(loaded, "select id from users order by id limit 2")
    execute(
        loaded,
        f"update users set role = 'root' where id = '{first}'",
        f"update users set created_by = gen_random_uuid() where id = '{second}'",
    )
    done = apply_constraints(loaded, spec(loaded, "users_constraints"), online=False)
    assert done.failed.keys() == {"chk_users_role_valid", "fk_users_created_by"}
    assert first in done.failed["chk_users_role_valid"]
    assert second in done.failed["fk_users_created_by"]
    valid = "select conname from pg_constraint where conrelid = 'users'::regclass and convalidated"
    assert {*keys(loaded, valid.replace("convalidated", "not convalidated"))} == done.failed.keys()
    assert {*done.created} <= {*keys(loaded, valid)}
    assert {*done.created} | done.failed.keys() == {
        one.name for one in constraint_definitions(spec(loaded, "users_constraints"))
    }
    for broken in ("role = 'root'", "created_by = gen_random_uuid()"):
        with pytest.raises(errors.IntegrityError):
            execute(loaded, f"update users set {broken} where id not in ('{first}', '{second}')")
    assert (
        apply_constraints(loaded, spec(loaded, "users_constraints"), online=False).failed.keys() == done.failed.keys()
    )


def test_rows_that_no_partition_can_take_stay_in_the_default_one_and_are_named_and_all_else_is_done(
    loaded: Session,
) -> None:
    draw = random.Random(3)
    long = "".join(chr(draw.randrange(0x4E00, 0x9F00)) for _ in range(6_000))
    key, other = "6598cf07-ff76-8b2e-8336-81085a000b44", "6598cf07-ff76-8b2e-8336-81085b000b44"
    for number, (identifier, month, tag) in enumerate([(key, "2044-05-05", long), (other, "2044-06-05", "short")]):
        execute(
            loaded,
            "insert into posts (id, user_id, title, content, slug, created_at, created_by, tags) select"
            f" '{identifier}', user_id, 'A title', 'Long enough to be one', 'later-{number}', '{month}', created_by,"
            f" array['{tag}'] from posts limit 1",
        )
    # Built online, the index stays on the table, without the default partition's, and partitions made later have it.
    done = apply_indexes(loaded, spec(loaded, "posts_tags_indexes"), online=True)
    assert done.failed.keys() == {"idx_posts_tags_gin"}
    partitions = spec(loaded, "posts_partitions")
    kept = apply_partitions(loaded, partitions)
    # Those ahead, this month's, and those since the earliest row's.
    assert kept.drained is None and len(kept.made) > int(partitions.options["ahead"])
    assert kept.failed is not None and key in kept.failed and other not in kept.failed and "1 row:" in kept.failed
    assert value(loaded, "select count(*) from posts_default") == 2
    assert value(loaded, "select count(*) from pg_class where relname like 'posts%drain%'") == 0
    verdict = check_bounds(loaded, "posts")
    assert (verdict.passed, verdict.in_the_way) == (False, kept.failed)
    assert key in verdict.message()
    execute(loaded, f"update posts set tags = '{{a}}' where id = '{key}'")
    moved = apply_partitions(loaded, partitions)
    assert moved.failed is None and moved.drained is not None
    assert moved.drained.partitions == ("posts_2044_05", "posts_2044_06")
    assert check_bounds(loaded, "posts").in_the_way is None
    assert value(loaded, "select count(*) from migration.unbuilt where object like '%posts_default'") == 0


def test_a_view_whose_query_fails_for_some_rows_is_told_of_and_made_once_they_are_mended(
    loaded: Session, tmp_path: Path
) -> None:
    broken = changed(loaded, tmp_path, "views/user_post_stats.sql", "avg(p.like_count)", "avg(1 / (p.like_count - 77))")
    (key,) = keys(loaded, "select id from posts limit 1")
    execute(loaded, "update posts set like_count = 1", f"update posts set like_count = 77 where id = '{key}'")
    apply(broken, spec(broken, "statistics_functions"))
    view = spec(broken, "user_post_stats")
    done: Any = apply_view(broken, view)
    assert "division by zero" in done.failed["user_post_stats"]
    assert not view_fresh(broken, view).passed
    assert "division by zero" in view_fresh(broken, view).message()
    assert not view_equals_query(broken, view).passed
    execute(loaded, f"update posts set like_count = 1 where id = '{key}'")
    assert "user_post_stats" in apply_view(broken, view).created
    assert view_fresh(broken, view).passed
    execute(loaded, f"update posts set like_count = 77 where id = '{key}'")
    assert apply_view(broken, view).failed.keys() == {"user_post_stats"}
    assert not view_fresh(broken, view).passed
