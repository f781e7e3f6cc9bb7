from __future__ import annotations

import dataclasses
import errno
import hashlib
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from b44_assets.catalog import (
    Catalog,
    Field,
    Kind,
    Period,
    Seed,
    Spec,
    Statement,
    UniqueSuffix,
    load_catalog,
    split_statements,
    view_definition,
)
from b44_assets.catalog.columns import declared_table
from b44_assets.config.quantities import EARLIEST_MONTH, period_text
from b44_assets.errors import CatalogError

NOWHERE = Path("nowhere.sql")
GIVEN = "select record_number, base44_id, null::uuid as id, '{}'::text[] as reasons, '{}'::jsonb[] as repairs, null::jsonb as unmapped"
SMALL = {
    "functions/tag_functions.sql": "-- Tags.\nselect 1;\nselect 2;\n",
    "tables/users.sql": "-- Accounts and\n-- profiles.\ncreate table users (id uuid primary key);\n",
    "tables/posts.sql": (
        "-- Articles.\n-- partitions: month of created_at\n-- depends: users\ncreate table posts (id uuid);\n"
    ),
    "mappings/users.sql": "-- What becomes of a User.\n-- entity: User\n-- fields: id, email\n"
    + GIVEN
    + " from source\n",
    "mappings/posts.sql": (
        "-- What becomes of a Post.\n-- entity: Post\n-- depends: users,\n--   tag_functions\n"
        "-- fields: id, title, content, owner|owner_id\n-- html: content\n-- large_columns: content\n-- deferred_fk: owner\n"
        "-- unique_suffix: slug in users by id, repaired\n"
        + GIVEN
        + ", content, owner, slug, title, name_given, created_at from source\n"
    ),
    "indexes/posts_equality_indexes.sql": "-- Equality.\n-- on: posts\ncreate index idx_posts_slug on posts (slug);\n",
    "views/aaa.sql": (
        "-- A view.\n-- depends: posts\ncreate materialized view aaa as select 1 as one;\n"
        "create unique index idx_aaa_one on aaa (one);\n"
    ),
}


def folder(root: Path, **changes: str | None) -> Path:
    """Writes the small catalogue; a change names a file with `__` for `/`, and None leaves it out."""
    files: dict[str, str | None] = {**SMALL}
    files.update({f"{name.replace('__', '/')}.sql": text for name, text in changes.items()})
    for name, text in files.items():
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
    return root


def small(root: Path) -> Catalog:
    return load_catalog(folder(root))


def of_app(catalog: Catalog) -> list[Spec]:
    """The files of the folder, without those that come with the program."""
    return [spec for spec in catalog.specs if spec.kind is not Kind.RUNTIME]


def complaint(root: Path) -> str:
    """The one line about what is wrong, without the folder's name."""
    with pytest.raises(CatalogError) as caught:
        load_catalog(root)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(root))
    return message.replace(f"{root}/", "").replace(str(root), "FOLDER")


# -- a good folder -------------------------------------------------------------------------------------------------------


def test_every_file_stands_behind_what_it_depends_on_otherwise_by_stage_and_name(tmp_path: Path) -> None:
    assert [(spec.kind.value, spec.name) for spec in of_app(small(tmp_path))] == [
        ("functions", "tag_functions"),
        ("tables", "users"),
        ("mappings", "users"),
        ("tables", "posts"),
        ("mappings", "posts"),
        ("indexes", "posts_equality_indexes"),
        ("views", "aaa"),
    ]


def test_a_spec_says_what_its_file_says(tmp_path: Path) -> None:
    spec = small(tmp_path).table("posts")
    assert spec.description == "Articles."
    assert spec.depends == ("users",)
    assert spec.statements == (Statement("create table posts (id uuid)", 4),)
    assert spec.path == tmp_path / "tables/posts.sql"
    assert spec.digest == hashlib.sha256(SMALL["tables/posts.sql"].encode()).hexdigest()
    assert spec.period == Period("month", "created_at")


def test_a_description_may_have_many_lines(tmp_path: Path) -> None:
    assert small(tmp_path).table("users").description == "Accounts and profiles."


def test_a_table_without_periods_has_none(tmp_path: Path) -> None:
    assert small(tmp_path).table("users").period is None


def test_a_mapping_is_taken_apart(tmp_path: Path) -> None:
    mapping = small(tmp_path).mappings["posts"]
    assert (mapping.entity, mapping.key) == ("Post", "id")
    assert mapping.fields == (Field(("id",)), Field(("title",)), Field(("content",)), Field(("owner", "owner_id")))
    assert mapping.fields[-1].name == "owner"
    assert (mapping.html, mapping.large_columns, mapping.deferred_fk) == (("content",), ("content",), ("owner",))
    assert mapping.unique_suffix == UniqueSuffix("slug", "users", "id", None, "created_at", repaired=True)
    assert mapping.spec.depends == ("users", "tag_functions")


def test_a_mapping_without_options_has_their_defaults(tmp_path: Path) -> None:
    mapping = small(tmp_path).mappings["users"]
    assert (mapping.key, mapping.html, mapping.large_columns, mapping.deferred_fk, mapping.unique_suffix) == (
        "id",
        (),
        (),
        (),
        None,
    )


def test_a_numbered_column_need_not_be_a_repair(tmp_path: Path) -> None:
    text = SMALL["mappings/posts.sql"].replace(", repaired", "")
    suffix = load_catalog(folder(tmp_path, mappings__posts=text)).mappings["posts"].unique_suffix
    assert suffix == UniqueSuffix("slug", "users", "id", None, "created_at", repaired=False)


@pytest.mark.parametrize(
    ("said", "made_from", "order", "repaired"),
    [
        (", made from title, repaired", "title", "created_at", True),
        (", ordered by owner, repaired", None, "owner", True),
        (", made from title, ordered by owner", "title", "owner", False),
        (", made from title, ordered by owner, repaired", "title", "owner", True),
    ],
)
def test_a_unique_name_can_be_made_from_another_column_and_claimed_in_any_order(
    tmp_path: Path, said: str, made_from: str | None, order: str, repaired: bool
) -> None:
    text = SMALL["mappings/posts.sql"].replace(", repaired", said)
    suffix = load_catalog(folder(tmp_path, mappings__posts=text)).mappings["posts"].unique_suffix
    assert suffix == UniqueSuffix("slug", "users", "id", made_from, order, repaired=repaired)


def test_a_large_column_is_not_there_to_be_made_unique_or_to_order_by(tmp_path: Path) -> None:
    text = SMALL["mappings/posts.sql"].replace(", repaired", ", ordered by content")
    folder(tmp_path, mappings__posts=text)
    assert complaint(tmp_path) == (
        "mappings/posts.sql:7: content cannot be one of 'large_columns': 'unique_suffix' reads it"
    )


def test_tables_are_found_by_entity(tmp_path: Path) -> None:
    assert small(tmp_path).entities == {"User": "users", "Post": "posts"}


def test_files_are_found_by_kind_in_order(tmp_path: Path) -> None:
    assert [spec.name for spec in small(tmp_path).of(Kind.TABLE, Kind.VIEW)] == ["users", "posts", "aaa"]


def test_an_unknown_table_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="nothing"):
        small(tmp_path).table("nothing")


def test_specs_cannot_be_changed(tmp_path: Path) -> None:
    catalog = small(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        catalog.specs[0].name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        catalog.specs[0].options["on"] = "x"  # pyright: ignore[reportIndexIssue]
    with pytest.raises(TypeError):
        del catalog.mappings["users"]  # pyright: ignore[reportIndexIssue]


def test_files_that_are_no_sql_are_none_of_the_catalogue(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in (
        "tables/notes.txt",
        "functions/README.md",
        "views/.gitkeep",
        "docs/notes.md",
        "tables/.draft.sql",
        ".old/x.sql",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("notes")
    assert len(of_app(load_catalog(tmp_path))) == len(SMALL)


def test_the_digest_changes_with_the_text_alone(tmp_path: Path) -> None:
    before = small(tmp_path / "a").table("users").digest
    assert small(tmp_path / "b").table("users").digest == before
    changed = load_catalog(folder(tmp_path / "c", tables__users=SMALL["tables/users.sql"] + "\n"))
    assert changed.table("users").digest != before


def test_the_projects_own_folder_is_sound() -> None:
    catalog = load_catalog(Path(__file__).parents[2] / "sql")
    assert set(catalog.entities) == {
        "User", "Category", "Post", "Event", "UserPreference", "UserSession", "AuditLog",
    }  # fmt: skip
    place = {spec.name: number for number, spec in enumerate(catalog.specs)}
    assert [(s.name, name) for s in catalog.specs for name in s.depends if place[name] > place[s.name]] == []


# -- broken ones -----------------------------------------------------------------------------------------------------------


def test_a_missing_folder_names_the_variable(tmp_path: Path) -> None:
    assert complaint(tmp_path / "none") == "FOLDER: no such folder (B44_SQL_DIR)"


def test_a_folder_without_sql_says_so(tmp_path: Path) -> None:
    assert complaint(tmp_path).startswith("FOLDER: holds no SQL files in functions, tables")


def test_a_missing_dependency_is_named_with_its_line(tmp_path: Path) -> None:
    folder(tmp_path, views__aaa="-- A view of nothing.\n-- depends: posts,\n--   nothing\nselect 1;\n")
    assert complaint(tmp_path) == "views/aaa.sql:3: depends on nothing, which no file of FOLDER gives"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reports/report.sql", "reports: there is no such kind; there are functions, tables, mappings"),
        ("table/users.sql", "table: there is no such kind (did you mean tables?); there are functions"),
        (
            "books/exports.sql",
            "books: the migration's own tables and functions come with the program; remove this folder",
        ),
        ("runtime/exports.sql", "runtime: the migration's own tables"),
        ("notes.sql", "notes.sql: an SQL file stands in the folder of its kind: functions, tables"),
        ("tables/old/events.sql", "tables/old/events.sql: SQL files stand in tables itself"),
        ("tables/events.SQL", "tables/events.SQL: is not read; its name must end with .sql"),
    ],
)
def test_a_sql_file_that_no_kind_claims_is_named(tmp_path: Path, name: str, expected: str) -> None:
    folder(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("-- Something.\nselect 1;\n")
    assert complaint(tmp_path).startswith(expected)


def test_a_folder_of_links_is_looked_at_as_well(tmp_path: Path) -> None:
    root = folder(tmp_path / "sql")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "report.sql").write_text("select 1")
    (root / "reports").symlink_to(tmp_path / "elsewhere")
    assert complaint(root).startswith("reports: there is no such kind")


@pytest.mark.parametrize("name", ["text_functions", "b44/text_functions", "exports", "migration/exports"])
def test_what_comes_with_the_program_is_no_dependency_to_declare(tmp_path: Path, name: str) -> None:
    folder(tmp_path, views__aaa=f"-- A view.\n-- depends: posts,\n--   {name}\nselect 1;\n")
    assert complaint(tmp_path).startswith(f"views/aaa.sql:3: {name} comes with the program")


def test_a_file_of_an_app_may_be_named_as_one_of_the_program(tmp_path: Path) -> None:
    folder(
        tmp_path,
        functions__text_functions="-- Text.\nselect 1;\n",
        tables__users="-- Accounts.\n-- depends: text_functions\ncreate table users ();\n",
    )
    assert load_catalog(tmp_path).table("users").depends == ("text_functions",)


def test_what_comes_with_the_program_is_there_before_any_file_of_an_app(tmp_path: Path) -> None:
    kinds = [spec.kind for spec in small(tmp_path).specs]
    assert Kind.RUNTIME in kinds
    assert kinds == sorted(kinds, key=lambda kind: kind is not Kind.RUNTIME)


def test_a_missing_table_of_an_index_is_named_with_its_line(tmp_path: Path) -> None:
    folder(tmp_path, indexes__posts_equality_indexes="-- For events.\n-- on: events\nselect 1;\n")
    assert complaint(tmp_path).startswith("indexes/posts_equality_indexes.sql:2: depends on events")


def test_a_cycle_is_shown(tmp_path: Path) -> None:
    folder(tmp_path, tables__users="-- Accounts.\n-- depends: aaa\nselect 1;\n")
    message = complaint(tmp_path)
    ring = message.split("depends on itself: ")[1].split(" -> ")
    assert message.split(":")[:2] in ([f"{kind}/{ring[0]}.sql", "1"] for kind in ("tables", "mappings", "views"))
    assert ring[0] == ring[-1]
    assert set(ring) == {"users", "aaa", "posts"}


def test_a_file_that_depends_on_itself_is_a_cycle(tmp_path: Path) -> None:
    folder(tmp_path, views__aaa="-- A view.\n-- depends: aaa\nselect 1;\n")
    assert complaint(tmp_path) == "views/aaa.sql:1: depends on itself: aaa -> aaa"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("tables__users", "-- A.\n-- b.\n-- colour: red\nselect 1;", "tables/users.sql:3: unknown header 'colour'"),
        ("tables__users", "-- A.\n-- depend: posts\nselect 1;", "tables/users.sql:2: unknown header 'depend' (did you mean depends?)"),
        ("mappings__users", "-- A.\n-- entiti: E\nselect 1;", "mappings/users.sql:2: unknown header 'entiti' (did you mean entity?)"),
        ("tables__users", "-- A.\n-- on: posts\nselect 1;", "tables/users.sql:2: unknown header 'on'"),
        ("tables__users", "-- A.\n-- wide: x\nselect 1;", "tables/users.sql:2: unknown header 'wide'"),
        ("mappings__users", "-- A.\n-- wide: x\n", "mappings/users.sql:2: header 'wide' is called 'large_columns' now"),
        ("mappings__users", "-- A.\n-- numbered: x\n", "mappings/users.sql:2: header 'numbered' is called 'unique_suffix' now"),
        ("mappings__users", "-- A.\n-- later: x\n", "mappings/users.sql:2: header 'later' is called 'deferred_fk' now"),
        ("mappings__users", "-- A.\n-- claims: x\n", "mappings/users.sql:2: header 'claims' is called 'exchangeable_unique' now"),
        ("views__aaa", "-- A.\n-- depends: users\n-- depends: posts\nselect 1;", "views/aaa.sql:3: header 'depends'"),
        ("views__aaa", "-- A.\n-- depends: users\n-- and more\nselect 1;", "views/aaa.sql:3: expected '-- key: value'"),
        ("views__aaa", "", "views/aaa.sql:1: the first comment must say what this is"),
        ("views__aaa", "select 1;", "views/aaa.sql:1: the first comment must say what this is"),
        ("views__aaa", "-- depends: users\nselect 1;", "views/aaa.sql:1: the first comment must say what this is"),
        ("views__aaa", "--\nselect 1;", "views/aaa.sql:1: the first comment must say what this is"),
        ("views__aaa", "-- A view.\n\n-- or none;\n;;\n", "views/aaa.sql: holds no statement"),
        ("views__aaa", "-- A.\nselect 1;\nselect 'it''s;\n", "views/aaa.sql:3: quote is never closed"),
        ("views__aaa", '-- A.\n\nselect "it;\n', "views/aaa.sql:3: quote is never closed"),
        ("views__aaa", "-- A.\nselect 'it''s,\n''and more;\n", "views/aaa.sql:2: quote is never closed"),
        ("views__aaa", "-- A.\nselect E'it\\';\n", "views/aaa.sql:2: quote is never closed"),
        ("views__aaa", "-- A.\nselect 1; /* but\n /* so */", "views/aaa.sql:2: comment is never closed"),
        ("views__aaa", "-- A.\ndo\n$x$ begin $$; end $y$", "views/aaa.sql:3: $x$ is never closed"),
        ("views__Posts", "-- A.\nselect 1;", "views/Posts.sql: the file's name must be the object's"),
        ("views__2nd", "-- A.\nselect 1;", "views/2nd.sql: the file's name must be the object's"),
        ("views__users", "-- A.\nselect 1;", "views/users.sql:1: users stands there twice: tables/users.sql"),
        ("views__b44", "-- A.\nselect 1;", "views/b44.sql:1: b44 is the name of an asset of the program's"),
        ("tables__posts", "-- A.\n-- partitions: day of t\nselect 1;", "tables/posts.sql:2: expected 'month of <column>'"),
        ("tables__posts", "-- A.\n-- first: 2020-01\nselect 1;", "tables/posts.sql:2: 'first' is for a table with periods"),
        ("tables__posts", "-- A.\n-- first: 2020\n-- partitions: month of a\nselect 1;", "tables/posts.sql:2: expected a month such"),
        ("tables__posts", "-- A.\n-- first: 2020-01\n-- partitions: year of a\nselect 1;", "tables/posts.sql:2: expected a year such"),
        ("tables__posts", "-- A.\n-- first: 1969-12\n-- partitions: month of a\nselect 1;", "tables/posts.sql:2: expected a month f"),
        ("tables__posts", "-- A.\n-- first: 9999\n-- partitions: year of a\nselect 1;", "tables/posts.sql:2: expected a year f"),
        ("tables__posts", "-- A.\n-- seed: id\nselect 1;", "tables/posts.sql:2: expected '<column> = '<value>'"),
        ("tables__posts", "-- A.\n-- seed: id = 'a' or true\nselect 1;", "tables/posts.sql:2: expected '<column> = '"),
        ("tables__posts", "-- A.\n-- partitions: month\nselect 1;", "tables/posts.sql:2: expected 'month of <column>'"),
        ("mappings__events", "-- A.\n-- entity: E\n-- fields: id\nselect 1", "mappings/events.sql:1: there is no table events"),
        ("mappings__aaa", "-- A.\n-- entity: E\n-- fields: id\nselect 1", "mappings/aaa.sql:1: there is no table aaa"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_the_line(tmp_path: Path, file: str, text: str, expected: str) -> None:
    folder(tmp_path, **{file: text})
    assert complaint(tmp_path).startswith(expected)


@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        ("entity: User\n-- fields: id", "select 1; select 2", "1: a mapping is one SELECT"),
        ("fields: id", "select 1", "1: a mapping needs a header 'entity'"),
        ("entity: User", "select 1", "1: a mapping needs a header 'fields'"),
        ("entity: User\n-- fields: email, id", "select 1", "3: 'fields' must begin with id"),
        ("entity: User\n-- fields: id, email,", "select 1", "3: 'fields' has an empty or repeated name"),
        ("entity: User\n-- fields: id, email|", "select 1", "3: 'fields' has an empty or repeated name"),
        ("entity: User\n-- fields: id, email, email", "select 1", "3: 'fields' has an empty or repeated name"),
        ("entity: User\n-- fields: id, email|mail, mail", "select 1", "3: 'fields' has an empty or repeated name"),
        (
            "entity: User\n-- fields: id, bios\n-- html: bio",
            "select 1",
            "4: 'html' names bio, which is not among the fields (did you mean bio",
        ),
        (
            "entity: User\n-- fields: id\n-- unique_suffix: name",
            "select 1",
            "4: expected 'unique_suffix: <column> in <table> by",
        ),
        (
            "entity: User\n-- fields: id\n-- exchangeable_unique: name",
            "select 1",
            "4: expected 'exchangeable_unique: <column>, ...; released by",
        ),
        ("entity: Post\n-- fields: id", "select 1", "2: entity Post has a mapping already: mappings/posts.sql:2"),
    ],
)
def test_a_broken_mapping_is_named_with_the_line(tmp_path: Path, header: str, body: str, expected: str) -> None:
    folder(tmp_path, mappings__users=f"-- What becomes of a User.\n-- {header}\n{body}\n")
    assert complaint(tmp_path).startswith(f"mappings/users.sql:{expected}")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "views/aaa.sql").write_bytes(b"-- caf\xe9\nselect 1;")
    assert complaint(tmp_path).startswith("views/aaa.sql: cannot be read: ")


# -- what would fail later ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        GIVEN.replace("as unmapped", "as unmaped"),
        f"with judged as ({GIVEN} from source)\nselect record_number, base44_id, id, reasons, repairs from judged",
        "select 1",
    ],
)
def test_a_mapping_that_lacks_a_column_is_named(tmp_path: Path, query: str) -> None:
    folder(tmp_path, mappings__users=f"-- What becomes of a User.\n-- entity: User\n-- fields: id\n\n{query}\n")
    message = complaint(tmp_path)
    assert message.startswith("mappings/users.sql:5: a mapping must give ")
    assert message.endswith("unmapped")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("large_columns: biography", "'large_columns' needs biography, which the mapping does not give"),
        ("deferred_fk: bio, owners", "'deferred_fk' needs owners, which the mapping does not give (did you mean owner?)"),
        ("unique_suffix: nam in users by id", "'unique_suffix' needs nam, which the mapping does not give (did you mean name?)"),
        ("unique_suffix: name in users by id, made from emial", "'unique_suffix' needs emial, which the mapping does not give"),
        ("unique_suffix: name in users by id, ordered by bios", "'unique_suffix' needs bios, which the mapping does not give"),
        ("exchangeable_unique: bio, emai; released by bio = id", "'exchangeable_unique' needs emai, which the mapping does not"),
        ("exchangeable_unique: bio; released by emai = id", "'exchangeable_unique' needs emai, which the mapping does not"),
    ],
)  # fmt: skip
def test_a_column_that_a_header_names_and_the_mapping_does_not_give_is_named(
    tmp_path: Path, header: str, expected: str
) -> None:
    text = f"-- What becomes of a User.\n-- entity: User\n-- fields: id, email\n-- {header}\n"
    folder(tmp_path, mappings__users=f"{text}{GIVEN}, email, bio, name, name_given, owner, created_at from source\n")
    assert complaint(tmp_path).startswith(f"mappings/users.sql:4: {expected}")


def test_a_mapping_of_a_unique_name_says_whether_it_was_given(tmp_path: Path) -> None:
    text = "-- What becomes of a User.\n-- entity: User\n-- fields: id, email\n-- unique_suffix: email in users by id\n"
    folder(tmp_path, mappings__users=f"{text}{GIVEN}, email from source\n")
    assert complaint(tmp_path) == "mappings/users.sql:5: a mapping must give name_given"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("views__aaa", "-- A.\n-- depends: post\nselect 1;", "(did you mean posts?)"),
        ("mappings__user", "-- A.\n-- entity: E\n-- fields: id\nselect 1", "(did you mean users?)"),
        ("queries__q", "-- A.\n-- uses: idx_post_slug\nselect 1", "(did you mean idx_posts_slug?)"),
    ],
)
def test_the_nearest_name_is_offered_for_one_that_is_not_there(
    tmp_path: Path, file: str, text: str, expected: str
) -> None:
    folder(tmp_path, **{file: text})
    assert expected in complaint(tmp_path)


@pytest.mark.parametrize(
    "query",
    [
        "select * from source",
        f"with a as ({GIVEN} from source) select a.* from a",
        f"{GIVEN} from source union all {GIVEN} from source",
        GIVEN.replace("as id", "id").replace("as reasons", '"reasons"') + " from source -- unmapped",
        "select strange syntax $ of ; nobody".replace(";", ""),
    ],
)
def test_a_mapping_that_gives_all_or_may_do_so_is_left_to_the_server(tmp_path: Path, query: str) -> None:
    folder(tmp_path, mappings__users=f"-- What becomes of a User.\n-- entity: User\n-- fields: id\n{query}\n")
    assert "users" in load_catalog(tmp_path).mappings


def test_the_key_of_a_mapping_is_a_column_of_it(tmp_path: Path) -> None:
    text = SMALL["mappings/users.sql"].replace("-- fields", "-- key: user_id\n-- fields")
    assert complaint(folder(tmp_path, mappings__users=text)) == "mappings/users.sql:5: a mapping must give user_id"


@pytest.mark.parametrize("kind", ["text", "bigint", "varchar(24)"])
def test_a_key_that_is_no_uuid_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    folder(tmp_path, tables__users=f"-- Accounts.\n\ncreate table users (\n  name text,\n  id {kind} primary key\n);\n")
    assert complaint(tmp_path).startswith(f"tables/users.sql:5: id must be uuid, not {kind}")


@pytest.mark.parametrize("kind", ["uuid", "UUID", "base44_id", "public.base44_id"])
def test_a_key_that_is_a_uuid_or_a_type_of_the_app_is_none_of_the_catalogues_faults(tmp_path: Path, kind: str) -> None:
    folder(tmp_path, tables__users=f"-- Accounts.\ncreate table users (name text, id {kind} primary key);\n")
    assert "users" in load_catalog(tmp_path).mappings


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("record_number bigint", "record_number"), ("Reasons text", "reasons"), ('"repairs" jsonb', "repairs"),
        ("unmapped jsonb", "unmapped"), ("name_given boolean", "name_given"), ("_position integer", "_position"),
    ],
)  # fmt: skip
def test_a_column_that_records_have_of_their_own_is_named_with_its_line(tmp_path: Path, column: str, name: str) -> None:
    folder(tmp_path, tables__users=f"-- Accounts.\n\ncreate table users (\n  id uuid primary key,\n  {column}\n);\n")
    assert complaint(tmp_path).startswith(f"tables/users.sql:5: users cannot have a column {name}: ")


def test_a_column_that_records_have_may_be_one_of_a_table_without_a_mapping_or_part_of_a_name(tmp_path: Path) -> None:
    folder(
        tmp_path,
        tables__users='-- Accounts.\ncreate table users (id uuid primary key, base44_id text, reasons_given text, "Repairs" text);\n',
        tables__audits="-- Audits.\ncreate table audits (id uuid primary key, reasons text, record_number bigint);\n",
    )
    assert "users" in load_catalog(tmp_path).mappings


@pytest.mark.parametrize("field", ["bio_exported", "bio_changed"])
def test_a_field_that_the_source_makes_of_an_html_one_is_read_by_another_name(tmp_path: Path, field: str) -> None:
    plain = SMALL["mappings/users.sql"].replace("id, email", f"id, email, bio, {field}")
    folder(tmp_path, mappings__users=plain)
    assert field in [item.name for item in load_catalog(tmp_path).mappings["users"].fields]
    folder(tmp_path, mappings__users=plain.replace("-- fields:", "-- html: bio\n-- fields:"))
    assert f"the source has a {field} of its own, as bio is html; write {field}_field|{field}" in complaint(tmp_path)


@pytest.mark.parametrize("field", ["record", "unmapped", "base44_id", "superseded"])
def test_a_field_that_the_source_has_of_its_own_is_read_by_another_name(tmp_path: Path, field: str) -> None:
    text = SMALL["mappings/users.sql"]
    folder(tmp_path, mappings__users=text.replace("id, email", f"id, email, {field}"))
    assert complaint(tmp_path).startswith(
        f"mappings/users.sql:3: the source has a {field} of its own; write {field}_field|{field}"
    )
    folder(tmp_path, mappings__users=text.replace("id, email", f"id, email, {field}_field|{field}"))
    assert "users" in load_catalog(tmp_path).mappings


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("views__aaa", "-- A view.\n-- depends: posts\ncreate materialized view aaa as\nselect 1 as one\n  from posts, users;\n"
                       "create unique index u on aaa (one);", 5),
        ("checks__sound", "-- All sound.\n-- on: posts\n\nselect 1 from posts where exists (select from users)", 4),
        ("checks__sound", "-- All sound.\n-- on: posts\nselect 1 from public.users", 3),
        ("mappings__users", "-- A user.\n-- entity: User\n-- fields: id\n" + GIVEN + " from source, aaa", 4),
    ],
)  # fmt: skip
def test_a_table_that_is_read_and_not_declared_is_named_with_its_line(
    tmp_path: Path, file: str, text: str, line: int
) -> None:
    folder(tmp_path, **{file: text})
    read = "aaa" if file == "mappings__users" else "users"
    expected = f"{file.replace('__', '/')}.sql:{line}: reads {read}, which its header 'depends' does not name"
    assert complaint(tmp_path) == expected


@pytest.mark.parametrize(
    "query",
    [
        "select id from posts",
        "with users as (select 1) select 1 from users",
        "select users from posts -- not from users",
        "select 'from users' from posts, pg_class, source, migration.users, b44.users",
        "select from users of nobody's syntax ((",
    ],
)
def test_what_only_looks_like_a_table_that_is_read_needs_no_declaring(tmp_path: Path, query: str) -> None:
    folder(tmp_path, checks__sound=f"-- All sound.\n-- on: posts\n{query.replace(chr(39) + 's', '')}\n")
    assert "sound" in load_catalog(tmp_path).checks


def test_a_sound_folder_is_read_without_the_parser_that_takes_long_to_import() -> None:
    code = (
        "import sys; from pathlib import Path; from b44_assets.catalog import load_catalog; load_catalog(Path('sql'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('sqlglot' in sys.modules)"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("checks__sound", "-- All.\n-- on: posts\n-- severity: fatal\nselect 1", "checks/sound.sql:3: expected 'severity: error'"),
        ("checks__sound", "-- All.\n-- on: posts\nselect 1; select 2", "checks/sound.sql:1: a check is one SELECT"),
        ("checks__sound", "-- All.\n-- on: posts\ndelete from posts", "checks/sound.sql:1: a check is one SELECT"),
        ("checks__sound", "-- All.\nselect 1", "checks/sound.sql:1: checks need a header 'on'"),
        ("checks__sound", "-- All.\n-- on: tag_functions\nselect 1", "checks/sound.sql:2: tag_functions is no table"),
    ],
)  # fmt: skip
def test_a_broken_check_is_named_with_the_line(tmp_path: Path, file: str, text: str, expected: str) -> None:
    folder(tmp_path, **{file: text})
    assert complaint(tmp_path).startswith(expected)


def test_nothing_depends_on_a_check(tmp_path: Path) -> None:
    folder(
        tmp_path,
        checks__sound="-- All.\n-- on: posts\nselect 1",
        tables__users="-- Accounts.\n-- depends: sound\ncreate table users (id uuid);",
    )
    assert complaint(tmp_path).startswith("tables/users.sql:2: nothing can depend on sound, which makes nothing")


# -- statements --------------------------------------------------------------------------------------------------------


def texts(text: str) -> list[str]:
    return [statement.text for statement in split_statements(text, NOWHERE)]


@pytest.mark.parametrize(
    "statement",
    [
        "select 'a;b', 'it''s;', ''",
        r"select 'back\', 1",
        r"select E'it\'s;\\', e'x;''y'",
        'select "a;b", "c"";d"',
        "select $$a;b'$$, $t$;$$;$t$",
        "select 1 -- one; of 'many\n, 2",
        "select /* a; /* b; */ c; */ 1",
        "create function f() returns int language sql begin atomic select 1; select 2; end",
        "create function f() returns int begin  /* ; */ atomic select case when 1 = 2 then 3; end; select 4; end",
        "create function f() returns int BEGIN ATOMIC select 1; END",
        "select a$b, c$d from e; ".rstrip("; "),
        "select $1",
    ],
)
def test_semicolons_inside_do_not_end_a_statement(statement: str) -> None:
    assert texts(f"{statement};\nselect 2") == [statement, "select 2"]


def test_begin_alone_and_case_outside_of_atomic_do_not_hold_statements_together() -> None:
    assert texts("begin; select case when true then 1 end; end; select atomic;") == [
        "begin", "select case when true then 1 end", "end", "select atomic",
    ]  # fmt: skip


def test_comments_alone_are_no_statement() -> None:
    assert texts("-- one\n;; /* two */ ;\n select 1 ; -- three\n") == ["select 1"]


def test_a_statement_begins_at_the_line_of_its_first_word() -> None:
    text = "\n-- one;\nselect 1;\n\n/* a\nb */ select\n2;"
    assert [statement.line for statement in split_statements(text, NOWHERE)] == [3, 6]


_WORD = st.from_regex(r"(?!atomic|begin|case|end|e\b)[a-z_][a-z0-9_]{0,5}", fullmatch=True)
_INSIDE = st.text("ab;'\"$\n-/*\\ é", max_size=8)
_TAG = st.sampled_from(["$$", "$a$", "$_b1$"])


def _harmless(text: str, *parts: str) -> str:
    for part in parts:
        text = text.replace(part, "")
    return text


_COMMENT = st.one_of(
    _INSIDE.map(lambda text: "--" + text.replace("\n", "") + "\n"),
    _INSIDE.map(lambda text: f"/*{_harmless(text, '*', '/')}*/"),
    _INSIDE.map(lambda text: f"/* /*{_harmless(text, '*', '/')}*/ ; */"),
)
_QUOTED = st.one_of(
    _INSIDE.map(lambda text: "'" + text.replace("'", "''") + "'"),
    _INSIDE.map(lambda text: " E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    _INSIDE.map(lambda text: '"' + text.replace('"', '""') + '"'),
    st.tuples(_TAG, _INSIDE).map(lambda both: f" {both[0]}{both[1].replace('$', '')}{both[0]}"),
)
_PIECE = st.one_of(_WORD, st.sampled_from(["1", "=", "(", ")", ","]), _QUOTED, _COMMENT)
_PLAIN = st.tuples(_WORD, st.lists(_PIECE, max_size=6), _WORD).map(
    lambda parts: " ".join([parts[0], *parts[1], parts[2]])
)
_ATOMIC = st.tuples(_PLAIN, st.lists(st.one_of(_PLAIN, _PLAIN.map(lambda s: f"case {s} end")), max_size=3)).map(
    lambda parts: f"{parts[0]} begin atomic {''.join(f'{s}; ' for s in parts[1])}end"
)
_STATEMENT = st.one_of(_PLAIN, _ATOMIC)
_BETWEEN = st.lists(st.one_of(_COMMENT, st.sampled_from([" ", "\n", ";"])), max_size=4).map("".join)


@given(st.lists(st.tuples(_BETWEEN, _STATEMENT), max_size=6), _BETWEEN)
@example([("", "a 'x;' b"), (" ", "c $$;$$ d")], "--;\n")
def test_joined_statements_are_split_where_they_were_joined(parts: list[tuple[str, str]], rest: str) -> None:
    text, expected = "", list[Statement]()
    for between, statement in parts:
        text += between
        expected.append(Statement(statement, text.count("\n") + 1))
        text += statement + ";"
    assert list(split_statements(text + rest, NOWHERE)) == expected


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])).map(str.strip), min_size=1)
)
@example(["O'Brien", "a', 'b", "''", ""])
def test_any_values_can_name_the_rows_that_a_table_s_own_file_puts_there(values: list[str]) -> None:
    header = "handle = " + ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    spec = Spec("t", Kind.TABLE, "", (), (), "", NOWHERE, {"seed": header})
    assert spec.seed == Seed("handle", tuple(values))
    assert dataclasses.replace(spec, options={}).seed is None


@given(st.dates(EARLIEST_MONTH, datetime.now(UTC).date()), st.sampled_from(["month", "year"]))
@example(datetime.now(UTC).date(), "month")
@example(EARLIEST_MONTH, "year")
def test_any_period_from_1970_to_now_can_be_a_table_s_first(
    tmp_path_factory: pytest.TempPathFactory, day: date, unit: str
) -> None:
    text = f"-- A.\n-- partitions: {unit} of a\n-- first: {period_text(unit, day)}\nselect 1;"
    path = tmp_path_factory.mktemp("app", numbered=True)
    (path / "tables").mkdir()
    (path / "tables" / "posts.sql").write_text(text)
    first = day.replace(day=1) if unit == "month" else day.replace(month=1, day=1)
    assert load_catalog(path).table("posts").period == Period(unit, "a", first)


# Roles, policies, views


CREATED = (
    "do $$ begin\n  if not exists (select from pg_roles where rolname = 'clerk') then\n    create role clerk nologin;\n"
    "  end if;\nend $$;\n"
)
ENABLED = "alter table posts enable row level security;\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("roles__b44_readonly", f"-- R.\n{CREATED}", "roles/b44_readonly.sql:1: b44_readonly comes with the program"),
        ("tables__users", "-- U.\n-- access: apend\nselect 1;",
         "tables/users.sql:2: expected write, append, read, none, not 'apend' (did you mean append?)"),
        ("views__users", "-- U.\n-- access: all\nselect 1;", "views/users.sql:2: expected write, append, read, none, not 'all'"),
        ("tables__users", "-- U.\n-- audited: yes\nselect 1;", "tables/users.sql:2: an audited table needs a trigger after insert on"),
        ("tables__users", "-- U.\n-- audited: no\nselect 1;", "tables/users.sql:2: expected 'audited: yes'"),
        ("triggers__posts_triggers", "-- T.\n-- on: posts\ncreate or replace trigger t after insert on posts"
         " referencing new table as added for each statement execute function b44.audit('id');",
         "triggers/posts_triggers.sql:1: notes changes of posts, whose file"),
        ("functions__other_functions", "-- T.\n-- execute: b44_writer\nselect 1;",
         "functions/other_functions.sql:2: 'execute' names one of"),
        ("roles__clerk", "-- R.\ncreate role clerk;", "roles/clerk.sql:2: expected 'do $$ begin if not exists"),
        ("roles__other", f"-- R.\n{CREATED}", "roles/other.sql:2: the role is clerk, the file other"),
        ("roles__clerk", "-- R.\n" + CREATED.replace("'clerk'", "'x'"), "roles/clerk.sql:2: the condition must be"),
        ("roles__clerk", f"-- R.\n{CREATED}create table x ();", "roles/clerk.sql:7: expected grant, revoke"),
        ("roles__clerk", f"-- R.\n{CREATED}alter role clerk password 'x';", "roles/clerk.sql:7: a password has no place"),
        ("roles__clerk", "-- R.\n" + CREATED.replace("nologin", "login password 'x'"), "roles/clerk.sql:2: a password has"),
        ("roles__clerk", f"-- R.\n{CREATED}grant select\n  on posts to clerk;",
         "roles/clerk.sql:8: names posts, but its header 'depends' does not name posts"),
        ("roles__clerk", f"-- R.\n{CREATED}alter table posts owner to clerk;", "roles/clerk.sql:7: names posts"),
        ("roles__clerk", f"-- R.\n{CREATED}grant execute on function tag(text) to clerk;",
         "roles/clerk.sql:7: names tag, but its header 'depends' does not name tag_functions"),
        ("policies__posts_policies", f"-- P.\n{ENABLED}", "policies/posts_policies.sql:1: policies need a header 'on'"),
        ("policies__posts_policies", "-- P.\n-- on: aaa\nselect 1;", "policies/posts_policies.sql:2: aaa is no table"),
        ("policies__posts_policies", "-- P.\n-- on: posts\ncreate policy p on posts;",
         "policies/posts_policies.sql:1: policies are in force only after 'alter table posts enable"),
        ("policies__posts_policies", f"-- P.\n-- on: posts\n{ENABLED}create policy p on users;",
         "policies/posts_policies.sql:4: is about users, the file about posts"),
        ("policies__posts_policies", f"-- P.\n-- on: posts\n{ENABLED}create policy p on posts;\ndrop policy if exists p on posts;",
         "policies/posts_policies.sql:5: p is dropped after it was made"),
        ("policies__posts_policies", f"-- P.\n-- on: posts\n{ENABLED}create policy p on posts;\ncreate policy p on posts;",
         "policies/posts_policies.sql:5: p stands there twice"),
        ("policies__posts_policies", f"-- P.\n-- on: posts\n{ENABLED}alter table posts disable row level security;",
         "policies/posts_policies.sql:4: expected 'alter table"),
        ("views__aaa", "-- V.\ncreate view bbb as select 1;", "views/aaa.sql:2: the view is bbb, the file aaa"),
        ("views__aaa", "-- V.\ncreate view aaa as select 1;\ncreate index i on aaa (a);", "views/aaa.sql:3: expected 'comment on"),
        ("views__aaa", "-- V.\ncreate recursive view aaa as select 1;", "views/aaa.sql:2: expected 'create materialized view"),
        ("views__aaa", "-- V.\ncreate or replace view aaa as select 1 from posts;", "views/aaa.sql:2: reads posts"),
    ],
)  # fmt: skip
def test_a_file_of_a_role_a_policy_or_a_view_of_another_form_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    folder(
        tmp_path,
        functions__tag_functions="-- Tags.\ncreate or replace function tag(text) returns text language sql return $1;\n",
        **{name: text},
    )
    assert complaint(tmp_path).startswith(expected)


def test_a_policy_comes_after_its_role_by_hand_and_a_role_s_rights_after_the_policies_in_a_migration(
    tmp_path: Path,
) -> None:
    folder(
        tmp_path,
        roles__clerk=f"-- R.\n-- depends: posts\n{CREATED}grant select on posts to clerk;\n",
        roles__reader="-- R.\n" + CREATED.replace("clerk", "reader") + "grant select on ALL tables in schema public to reader;\n",
        policies__posts_policies=f"-- P.\n-- on: posts\n-- depends: clerk\n{ENABLED}"
        "drop policy if exists p on posts;\ncreate policy p on posts to clerk using (true);\n",
    )  # fmt: skip
    catalog = load_catalog(tmp_path)
    files = {spec.name: spec for spec in catalog.specs if spec.kind is not Kind.MAPPING}
    order = list(files)
    assert order.index("posts") < order.index("clerk") < order.index("posts_policies")
    assert catalog.upstream(files["posts_policies"]) == ("posts",)
    assert catalog.upstream(files["clerk"]) == ("posts", "posts_policies")
    assert set(files["reader"].depends) == {"tag_functions", "users", "posts", "aaa"}
    assert catalog.roles_of(files["posts_policies"]) == (files["clerk"],)


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        ("", ""),
        (" (one, two)", "(one, two)"),
        ("\n  with (security_invoker = true, security_barrier)\n", "with (security_invoker = true, security_barrier)"),
        (" (one, two) with (security_invoker)", "(one, two) with (security_invoker)"),
    ],
)
def test_a_plain_view_is_taken_apart(tmp_path: Path, head: str, kept: str) -> None:
    text = f"create or replace view aaa{head} as select 1 as a, 2 as b from posts;\ncomment on view aaa is 'x';\n"
    folder(tmp_path, views__aaa=f"-- V.\n-- depends: posts\n{text}")
    (spec,) = load_catalog(tmp_path).of(Kind.VIEW)
    view = view_definition(spec)
    assert (view.materialized, view.head, view.indexes, len(view.comments)) == (False, kept, (), 1)
    assert view.query == "select 1 as a, 2 as b from posts"


@pytest.mark.parametrize(
    ("column", "type_"),
    [
        ("a timestamp(3) with time zone not null", "timestamp(3) with time zone"),
        ("a numeric(10, 2) default 0.00", "numeric(10, 2)"),
        ('a text[] -- several, or none\n collate "C"', "text[]"),
        ("a double precision generated always as (b * 2) stored", "double precision"),
        ('a app."Kind" references kinds (id)', 'app."Kind"'),
        ("a /* a flag */ boolean", "boolean"),
    ],
)
def test_the_type_of_a_column_ends_where_its_rules_begin(column: str, type_: str) -> None:
    table = declared_table(f"create table things ({column}, b integer check (b > 0))")
    assert table is not None
    assert [(one.name, one.type) for one in table.columns] == [("a", type_), ("b", "integer")]


@pytest.mark.parametrize(
    ("statement", "schema", "partitioned", "parent"),
    [
        ("create table things (a text default 'partition by')", "public", False, ""),
        ("create table if not exists b44.things (a date) -- by day\n partition by range (a)", "b44", True, ""),
        ('create table things partition of public."All" for values in (1)', "public", False, "All"),
        ("create unlogged table things partition of more default partition by hash (a)", "public", True, "more"),
    ],
)
def test_a_table_is_told_by_its_statement(statement: str, schema: str, partitioned: bool, parent: str) -> None:
    table = declared_table(statement)
    assert table is not None
    assert (table.schema, table.name, table.partitioned, table.parent) == (schema, "things", partitioned, parent)


@pytest.mark.parametrize("closed", [".", "policies"])
def test_a_folder_that_may_not_be_listed_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    (tmp_path / "policies").mkdir()

    # Root, as whom the tests may run, may list every folder.
    def refuse(path: str | Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir" if closed == "." else "os.scandir", refuse)
    assert complaint(tmp_path).endswith("cannot be listed: Permission denied")
