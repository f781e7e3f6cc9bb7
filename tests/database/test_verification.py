"""Parity holds on good data, and finds and names each fault that is planted."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from b44_assets.catalog import Catalog
from b44_assets.migration.accounts import accounts
from b44_assets.migration.content_parity import ContentParity, content_parity
from b44_assets.migration.plan import make_plan
from b44_assets.migration.verification import RowParity, row_parity
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.records import Record, object_id, post, user, uuid_of
from tests.helpers.target import SYSTEM_USER, Target, copied_target

EXPORT: dict[str, list[Record]] = {
    "User": [
        user(1, username="anna", created_by_id=object_id(2), created_date="2026-01-01"),
        user(2, username="anna", full_name="B", created_date="2026-01-02"),
        user(3, email="nothing"),
        user(1, username="anna", created_by_id=object_id(2), created_date="2026-01-01"),
    ],
    "Category": [{"id": object_id(1), "name": "News", "color": "red"}],
    "Post": [
        post(1, title="One", content="The first content", tags="a,b", published=True, category_id=object_id(1), view_count=7),
        post(2, title="Two", content="The <i onclick=x>second</i> content", tags="a,b", created_date="2026-02-03T04:05:06"),
        post(3, title="Two", content="The third content"),
        post(4, title=None),
        post(5, title="five", updated_date="2026-01-01"),
        post(5, title="Five", updated_date="2026-01-02"),
    ],
    "Event": [{"id": object_id(1), "user_id": object_id(1), "event_date": "2026-01-01", "cancelled": True}],
    "UserPreference": [{"id": object_id(1), "user_id": object_id(1), "preferences": {"a": 1, "b": [1, 2]}}],
    "UserSession": [{"id": object_id(1), "user_id": object_id(1), "expires_at": "2026-01-01", "session_data": {"a": 1}}],
    "AuditLog": [{"id": object_id(1), "table_name": "x", "record_id": object_id(1), "action": "update", "new_values": {"a": 1},
                  "timestamp": "2026-01-01T00:00:00", "user_id": object_id(1)}],
}  # fmt: skip
TABLES = ["users", "categories", "posts", "events", "user_preferences", "user_sessions", "audit_logs"]


def rows(target: Target, table: str) -> RowParity:
    found = row_parity(target.session, target.session.catalog.mappings[table])
    assert found is not None
    return found


def content(target: Target, table: str) -> ContentParity:
    found = content_parity(target.session, target.session.catalog.mappings[table])
    assert found is not None
    return found


@pytest.fixture
def good(embedded: EmbeddedServer, catalog: Catalog, tmp_path: Path) -> Generator[Target]:
    """All entities migrated."""
    with copied_target(embedded.url("postgres"), catalog, tmp_path, EXPORT, "verification") as target:
        yield target


@pytest.fixture(scope="module")
def steady(embedded: EmbeddedServer, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Generator[Target]:
    """As `good`, migrated once; who changes a row of it restores it."""
    export = tmp_path_factory.mktemp("export")
    with copied_target(embedded.url("postgres"), catalog, export, EXPORT, "verification") as target:
        yield target


# -- good data -------------------------------------------------------------------------------------------------------------


def test_good_data_passes_on_either_server(target: Target) -> None:
    target.migrate(EXPORT)
    for table in TABLES:
        found, compared = rows(target, table), content(target, table)
        assert (table, found.passed, compared.passed) == (table, True, True)
        assert (compared.missing, compared.differing, compared.edited, compared.differences) == (0, 0, 0, ())
        assert compared.compared == found.migrated == found.held > 0
        assert found.native == 0
        assert found.staged == found.read
    users = rows(target, "users")
    assert (users.read, users.migrated, users.deduplicated, users.quarantined) == (4, 2, 1, 1)
    assert users.message() == "4 read = 2 migrated + 1 deduplicated + 1 quarantined"
    assert content(target, "posts").message() == "4 rows equal their records"


def test_before_anything_is_staged_there_is_nothing_to_compare(target_18: Target) -> None:
    mapping = target_18.session.catalog.mappings["users"]
    assert row_parity(target_18.session, mapping) is None
    assert content_parity(target_18.session, mapping) is None


def test_an_entity_without_records_passes(target_18: Target) -> None:
    target_18.migrate({"User": []})
    assert rows(target_18, "users").passed
    assert content(target_18, "users").passed


def test_rows_of_the_new_system_are_told_apart(good: Target) -> None:
    good.run("insert into users (email) values ('native@example.com')")
    found = rows(good, "users")
    assert (found.passed, found.held, found.native) == (True, 2, 1)
    assert content(good, "users").passed


def test_the_system_user_is_left_out(steady: Target) -> None:
    assert steady.one("select count(*) from users where id = %s", SYSTEM_USER) == 1
    assert (rows(steady, "users").held, rows(steady, "users").native) == (2, 0)


def test_refused_records_of_the_file_count_as_staged(target_18: Target) -> None:
    (target_18.export / "User.jsonl").write_text('{"id": "1", "email": "a@b.de"}\n{broken\n')
    target_18.stage("users")
    target_18.load("users")
    found = rows(target_18, "users")
    assert (found.passed, found.read, found.staged, found.quarantined) == (True, 2, 2, 1)


def test_the_accounts_of_all_entities_are_in_the_order_of_the_catalogue(steady: Target) -> None:
    found = accounts(steady.session)
    assert [account.entity for account in found] == [t for t in steady.session.catalog.mappings if t in TABLES]
    posts = next(account for account in found if account.entity == "posts")
    assert (posts.read, posts.migrated, posts.deduplicated, posts.quarantined) == (6, 4, 0, 2)
    assert (posts.unaccounted, posts.pending) == (0, 0)
    assert posts.reasons == {"missing_title": 1, "duplicate_id": 1}
    assert posts.repairs == {"content": 1}


# -- planted faults --------------------------------------------------------------------------------------------------------

FIRST, SECOND = uuid_of(object_id(1)), uuid_of(object_id(2))


@dataclass(frozen=True)
class Fault:
    """What an UPDATE sets to plant a fault, and the columns of record 1 (by id) that are to be named."""

    says: str
    table: str
    assignment: str
    columns: tuple[str, ...]


FAULTS = [
    Fault("a letter of a title", "posts", "title = 'one'", ("title",)),
    Fault("white space in content", "posts", "content = content || ' '", ("content",)),
    Fault("a tag", "posts", "tags = array['a', 'B']", ("tags",)),
    Fault("the order of tags", "posts", "tags = array['b', 'a']", ("tags",)),
    Fault("no tags in place of some", "posts", "tags = null", ("tags",)),
    Fault("a counter", "posts", "view_count = 8", ("view_count",)),
    Fault("a boolean", "posts", "published = false", ("published",)),
    Fault("a time by a microsecond", "posts",
          "published_at = published_at + interval '1 microsecond'", ("published_at",)),
    Fault("a null in place of a time", "posts", "published_at = null", ("published_at",)),
    Fault("the time of the update, backwards", "posts",
          "updated_at = updated_at - interval '1 microsecond'", ("updated_at",)),
    Fault("the creation time, within its month", "posts",
          "created_at = created_at + interval '1 microsecond'", ("created_at",)),
    Fault("a null in place of a category", "posts", "category_id = null", ("category_id",)),
    Fault("another author", "posts", f"user_id = '{SECOND}'", ("user_id",)),
    Fault("a value in place of a null", "posts", f"updated_by = '{FIRST}'", ("updated_by",)),
    Fault("another slug", "posts", "slug = 'uno'", ("slug",)),
    Fault("several columns", "posts", "title = 'x', like_count = 1, slug = 'y'",
          ("like_count", "slug", "title")),
    Fault("an address", "users", "email = 'x@example.com'", ("email",)),
    Fault("a role", "users", "role = 'admin'", ("role",)),
    Fault("another username", "users", "username = 'other'", ("username",)),
    Fault("no username", "users", "username = null", ("username",)),
    Fault("another creator", "users", "created_by = null", ("created_by",)),
    Fault("a name in place of a null", "users", "display_name = ''", ("display_name",)),
    Fault("a color in place of a null", "categories", "color = '#000000'", ("color",)),
    Fault("the slug of a category", "categories", "slug = 'x'", ("slug",)),
    Fault("a boolean of an event", "events", "cancelled = false", ("cancelled",)),
    Fault("a member of a document", "user_preferences",
          "preferences = '{\"a\": 1, \"b\": [2, 1]}'", ("preferences",)),
    Fault("a document of a session", "user_sessions", "session_data = null", ("session_data",)),
    Fault("a document of an audit log", "audit_logs", "new_values = '{\"a\": \"1\"}'",
          ("new_values",)),
    Fault("a time of an audit log", "audit_logs",
          "timestamp = timestamp + interval '1 microsecond'", ("timestamp",)),
]  # fmt: skip


@contextmanager
def planted(target: Target, table: str, key: str, assignment: str) -> Generator[None]:
    """Changes one row for the block."""
    names = target.one(
        "select string_agg(quote_ident(attname), ', ') from pg_attribute"
        " where attrelid = %s::regclass and attnum > 0 and attgenerated = ''",
        table,
    )
    target.run(f"create temporary table before as select * from {table} where {key} = '{FIRST}'")
    try:
        target.run(f"update {table} set {assignment} where {key} = '{FIRST}'")
        yield
    finally:
        target.run(f"update {table} set ({names}) = (select {names} from before) where {key} = '{FIRST}'")
        target.run("drop table before")


@pytest.mark.parametrize("fault", [pytest.param(fault, id=f"{fault.table}: {fault.says}") for fault in FAULTS])
def test_a_changed_value_is_found_and_named(steady: Target, fault: Fault) -> None:
    key = "user_id" if fault.table == "user_preferences" else "id"
    with planted(steady, fault.table, key, fault.assignment):
        found = content(steady, fault.table)
    assert (found.passed, found.missing, found.differing, found.edited) == (False, 0, 1, 0)
    (difference,) = found.differences
    assert (difference.record_number, difference.base44_id) == (1, object_id(1))
    assert tuple(sorted(difference.columns)) == fault.columns
    assert f"record 1 (id {object_id(1)}) differs in " in found.message()


@pytest.mark.parametrize(
    "table",
    [t if t in ("posts", "user_preferences") else pytest.param(t, marks=pytest.mark.slow) for t in TABLES],
)
def test_a_deleted_row_is_found_and_named(good: Target, table: str) -> None:
    key = "user_id" if table == "user_preferences" else "id"
    good.run(f"delete from {table} where {key} = '{FIRST}'")
    held, compared = rows(good, table), content(good, table)
    assert (held.passed, held.held) == (False, held.migrated - 1)
    assert held.message() == f"{held.migrated} records were migrated, {table} holds {held.held} of them"
    assert (compared.passed, compared.missing, compared.differing) == (False, 1, 0)
    assert [(d.record_number, d.columns) for d in compared.differences] == [(1, ())]
    assert compared.message().endswith(f"record 1 (id {object_id(1)}) has no row")


def test_a_row_that_stands_in_two_months_is_found(good: Target) -> None:
    # As a replica's copy comes in, which fires no trigger: the registry of slugs does not let it stand there.
    good.run("set session_replication_role = replica")
    good.run(
        "insert into posts (id, user_id, title, content, slug, created_at, created_by)"
        " select id, user_id, title, content, 'another', '1999-01-01', created_by from posts" f" where id = '{FIRST}'"
    )  # fmt: skip
    good.run("reset session_replication_role")
    found = rows(good, "posts")
    assert (found.passed, found.migrated, found.held) == (False, 4, 5)


def test_a_row_in_place_of_another_is_found(good: Target) -> None:
    good.run(f"update posts set id = gen_random_uuid() where id = '{FIRST}'")
    assert (rows(good, "posts").passed, rows(good, "posts").native) == (False, 1)
    assert content(good, "posts").missing == 1


def test_content_swapped_between_two_rows_is_found_in_both(good: Target) -> None:
    good.run(
        "update posts p set content = o.content from posts o"
        f" where (p.id, o.id) in (('{FIRST}', '{SECOND}'), ('{SECOND}', '{FIRST}'))"
    )
    found = content(good, "posts")
    assert (found.passed, found.differing) == (False, 2)
    assert [(d.record_number, d.columns) for d in found.differences] == [(1, ("content",)), (2, ("content",))]


def test_a_deleted_record_of_quarantine_is_unaccounted_for(good: Target) -> None:
    good.run("delete from migration.quarantine where entity = 'posts' and record_number = 4")
    found = rows(good, "posts")
    assert (found.passed, found.unaccounted) == (False, 1)
    assert found.message() == "1 of 6 records read are unaccounted for"


def test_a_deleted_staged_row_is_found(good: Target) -> None:
    good.run("delete from base44.posts where _record_number = 3")
    found = rows(good, "posts")
    assert (found.passed, found.staged) == (False, 5)
    assert found.message() == "6 records were read, base44.posts holds 5"


def test_a_staged_row_too_many_is_found(good: Target) -> None:
    good.run("insert into base44.posts (id, _record_number) values ('x', 99)")
    assert (rows(good, "posts").passed, rows(good, "posts").staged) == (False, 7)


def test_a_changed_staged_record_is_found(good: Target) -> None:
    good.run("update base44.posts set title = 'Changed' where _record_number = 1")
    assert [d.columns for d in content(good, "posts").differences] == [("title", "slug")]


def test_without_the_staged_export_rows_are_compared_with_how_they_were_written(good: Target) -> None:
    # base44.* is unlogged: a physical restoration leaves it empty.
    good.run("truncate base44.posts")
    migrated = good.one("select count(*) from migration.migrated where entity = 'posts'")
    found = content(good, "posts")
    assert (found.passed, found.kept, found.staged, found.compared) == (False, True, False, migrated)
    assert found.message().startswith("base44.posts: staged export not restored, by design (unlogged tables)")
    assert (rows(good, "posts").staged, rows(good, "posts").unaccounted) == (None, 0)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("update posts set title = 'Damaged' where id = (select min(id::text)::uuid from posts)", (0, 1, 0)),
        ("delete from posts where id = (select min(id::text)::uuid from posts)", (1, 0, 0)),
        (
            "update posts set title = 'Edited', updated_at = now() where id = (select min(id::text)::uuid from posts)",
            (0, 0, 1),
        ),
    ],
)
def test_what_became_of_a_row_shows_without_the_staged_export(
    good: Target, statement: str, expected: tuple[int, int, int]
) -> None:
    good.run("truncate base44.posts")
    good.run(statement)
    found = content(good, "posts")
    assert (found.missing, found.differing, found.edited) == expected
    assert found.kept == (expected[:2] == (0, 0))


def test_records_that_wait_for_their_batch_do_not_pass(target_18: Target) -> None:
    from datetime import date

    from b44_assets.migration.parts import Range

    target_18.migrate({"User": EXPORT["User"]})
    target_18.write(EXPORT)
    target_18.stage("posts")
    target_18.load("posts", wanted=Range(date(2026, 1, 1)))
    found = rows(target_18, "posts")
    assert (found.passed, found.pending) == (False, 3)
    assert found.message() == "3 of 6 records wait for their batch; run the migration again"
    assert content(target_18, "posts").passed


def test_a_row_edited_in_the_new_system_is_told_apart_from_one_that_differs(good: Target) -> None:
    good.run(f"update posts set title = 'Edited', updated_at = now() where id = '{FIRST}'")
    found = content(good, "posts")
    assert (found.passed, found.edited, found.differing, found.differences) == (True, 1, 0, ())
    assert found.message() == "4 rows equal their records; 1 edited since"


def test_a_row_changed_since_it_was_written_is_told_apart_from_one_that_was_written_so(good: Target) -> None:
    good.run(f"update posts set view_count = view_count + 1 where id = '{FIRST}'")
    found = content(good, "posts")
    assert (found.passed, found.written, found.differing, found.touched) == (False, True, 1, 1)
    assert found.message().endswith("; 1 row was changed since being written, without a newer updated_at")
    good.run("update base44.posts set title = 'Changed' where _record_number = 2")
    found = content(good, "posts")
    assert (found.passed, found.written, found.differing, found.touched) == (False, False, 2, 1)
    assert [d.columns for d in found.differences] == [("view_count",), ("title", "slug")]


def test_the_first_of_many_differences_are_named(target_18: Target) -> None:
    target_18.migrate({"User": [user(1)], "Post": [post(n) for n in range(30)]})
    target_18.run("update posts set like_count = 1")
    found = content(target_18, "posts")
    assert (found.compared, found.differing) == (30, 30)
    assert [d.record_number for d in found.differences] == list(range(1, 21))


def test_numbers_after_a_name_are_no_difference(steady: Target) -> None:
    assert {row["slug"] for row in steady.table("posts")} == {"one", "two", "two-2", "five"}
    assert {row["username"] for row in steady.table("users")} == {"anna", "anna-2"}
    assert content(steady, "posts").passed
    assert content(steady, "users").passed


# -- what was verified before ----------------------------------------------------------------------------------------------


def verified_again(target: Target) -> ContentParity:
    found = content_parity(target.session, target.session.catalog.mappings["posts"], anew=False)
    assert found is not None
    return found


def test_rows_that_are_as_they_were_proven_are_not_mapped_again(good: Target) -> None:
    assert not verified_again(good).verified_before
    again = verified_again(good)
    assert (again.verified_before, again.passed, again.compared) == (True, True, len(good.table("posts")))


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [
        "update posts set title = 'Another' where id = (select id from posts order by id limit 1)",
        "delete from posts where id = (select id from posts order by id limit 1)",
        "update posts set slug = 'another', title = 'Another' where id = (select id from posts order by id limit 1)",
    ],
)
def test_a_row_changed_after_the_proof_is_found(good: Target, change: str) -> None:
    verified_again(good)
    with good.conn.transaction():
        good.run("select set_config('b44.migrating', pg_current_xact_id()::text, true)")
        good.run(change)
    found = verified_again(good)
    assert not found.verified_before and not found.passed


def test_a_verification_ends_with_the_next_batch_and_the_next_plan(good: Target) -> None:
    verified_again(good)
    good.run("insert into migration.migration_log (entity_type, status) values ('posts', 'completed')")
    assert not verified_again(good).verified_before
    assert verified_again(good).verified_before
    good.run("update migration.plans set generation = default where entity = 'posts'")
    assert not verified_again(good).verified_before


# -- what was planned ------------------------------------------------------------------------------------------------------


def test_a_run_that_has_planned_compares_with_what_its_plan_mapped(good: Target) -> None:
    for table in TABLES:
        mapping = good.session.catalog.mappings[table]
        found = content_parity(good.session, mapping, anew=False)
        assert found is not None
        assert (table, found.planned, found.passed, found.compared) == (table, True, True, len(good.table(table)))
    assert verified_again(good).verified_before


@pytest.mark.parametrize(
    "change",
    [
        # On the way from the plan to the table: the plan itself, what is read from the staged record, the table.
        "update migration.posts_plan set title = 'Another' where _position = 1",
        "update base44.posts set content = 'Another content', _clean_content = null where _record_number = 1",
        "create function spoil() returns trigger language plpgsql as 'begin new.view_count := 8; return new; end';"
        "create trigger spoil before insert on posts for each row execute function spoil()",
    ],
)
def test_a_row_that_is_not_what_its_record_was_mapped_to_is_found(target_18: Target, change: str) -> None:
    target_18.migrate({name: records for name, records in EXPORT.items() if name != "Post"})
    target_18.write({"Post": EXPORT["Post"]})
    target_18.stage("posts")
    mapping = target_18.session.catalog.mappings["posts"]
    make_plan(target_18.session, mapping)
    target_18.run(change)
    target_18.load("posts")
    target_18.run("drop function if exists spoil() cascade")
    found = verified_again(target_18)
    assert not found.planned
    # All records are mapped once more, from what is staged now.
    assert found.passed == ("base44" in change)


@pytest.mark.parametrize(
    "change",
    [
        "delete from migration.posts_plan where _position = 1",
        "truncate migration.posts_plan",
        "alter table migration.posts_plan drop column _checksum",
        "update migration.plans set fingerprint = 'of another day' where entity = 'posts'",
    ],
)
def test_records_are_mapped_once_more_where_the_plan_cannot_tell(good: Target, change: str) -> None:
    good.run(change)
    found = verified_again(good)
    assert (found.planned, found.passed, found.compared) == (False, True, len(good.table("posts")))


def test_a_name_that_was_made_unique_otherwise_is_not_what_was_planned(good: Target) -> None:
    with good.conn.transaction():
        good.run("select set_config('b44.migrating', pg_current_xact_id()::text, true)")
        good.run("update posts set slug = 'two-7' where slug = 'two-2'")
    assert not verified_again(good).planned
