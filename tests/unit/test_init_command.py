"""`b44 init`: which folders it takes, what it writes and prints, and that what it writes works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath

import pytest
import yaml
from click.testing import CliRunner, Result

from b44_assets.catalog import load_catalog
from b44_assets.cli import main
from b44_assets.config.app_folder import find_app_folder
from b44_assets.scaffold import generation
from b44_assets.scaffold.decisions import decisions_page, open_entities_of
from b44_assets.scaffold.folder import written_path
from b44_assets.scaffold.model import (
    App,
    Audience,
    Column,
    ColumnType,
    Decision,
    Entity,
    Field,
    Notice,
    Origin,
    Overrides,
    Reference,
    ReferenceBy,
    Rule,
    Table,
)
from b44_assets.scaffold.overrides import overrides_of

REPOSITORY = Path(__file__).parents[2]


def run(*arguments: str | Path, at: Path) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(at)
        return CliRunner().invoke(main, ["init", *map(str, arguments)], catch_exceptions=False)


def refused(*arguments: str | Path, at: Path) -> str:
    before = sorted(at.rglob("*"))
    result = run(*arguments, at=at)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("b44: ") and result.stderr.count("\n") == 1
    assert sorted(at.rglob("*")) == before
    return result.stderr


def replies(name: str = "replies", decisions: tuple[Decision, ...] = ()) -> App:
    """An app of one entity, open to everyone, with a reference."""
    discussion = Field("discussion_id", types=("string",))
    reference = Reference("discussions", ReferenceBy.ID, "name matches", constrained=True)
    columns = (Column("discussion_id", discussion, ColumnType.UUID, reference),)
    return App(
        name="forum",
        tables=(Table(name, Entity("Reply", Origin.SCHEMA, (discussion,)), columns),),
        decisions=decisions,
        notices=(Notice(Path("entities/Odd.json"), "no JSON: left out"),),
        rules=(
            Rule("Admin", "read", "", Audience.SOME, "the role admin"),
            Rule("Reply", "read", "", Audience.EVERYONE, "everyone"),
            Rule("Reply", "delete", "", Audience.NOBODY, ""),
        ),
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path | None, Path | None, Overrides]]:
    """What the generation was asked for, which gives the file of one table."""
    asked: list[tuple[Path | None, Path | None, Overrides]] = []

    def generate(
        entities: Path | None, export: Path | None, source: Path | None, overrides: Overrides
    ) -> tuple[App, Mapping[PurePath, str]]:
        asked.append((entities, export, overrides))
        name = overrides.tables.get("Reply", "replies")
        return replies(name), {PurePosixPath(f"sql/tables/{name}.sql"): f"-- {overrides.app}\n"}

    monkeypatch.setattr(generation, "generate", generate)
    return asked


# -- the folder --------------------------------------------------------------------------------------------------------


def test_the_example_is_an_app_that_works(tmp_path: Path) -> None:
    result = run("my blog", "--example", "blog", at=tmp_path)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == ["8 tables", "next: cd 'my blog' && b44 sample export && b44 migrate"]
    app = find_app_folder(tmp_path / "my blog")
    assert app is not None and (app.name, app.export_dir) == ("my blog", tmp_path / "my blog" / "export")
    there, bundled = load_catalog(app.sql_dir), load_catalog(REPOSITORY / "sql")
    assert list(there.mappings) == list(bundled.mappings)
    again = run("my blog", "--example", "blog", at=tmp_path)
    assert again.stdout.startswith("Nothing has changed")
    # By its own file, it is known what it is a copy of.
    assert run(".", at=app.path).stdout.startswith("Nothing has changed")


def test_its_dagster_project_loads_by_itself(tmp_path: Path) -> None:
    run("blog", "--example", "blog", at=tmp_path)
    folder = tmp_path / "blog"
    [location] = yaml.safe_load((folder / "workspace.yaml").read_text())["load_from"]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert location["python_file"]["location_name"] == project["code_location_name"] == "b44_assets"
    # As a file, as Dagster loads it, and from elsewhere.
    code = (
        "import runpy, sys; defs = runpy.run_path(sys.argv[1])['defs'];"
        " print(defs.resources['migration'].base.settings.sql_dir);"
        " print(len(defs.resolve_asset_graph().get_all_asset_keys()))"
    )
    environment = {name: text for name, text in os.environ.items() if not name.startswith("B44_")}
    done = subprocess.run(
        [sys.executable, "-c", code, folder / location["python_file"]["relative_path"]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    sql_dir, assets = done.stdout.splitlines()
    assert (sql_dir, int(assets) > 50) == (str(folder / "sql"), True)
    assert not (tmp_path / ".b44").exists()


@pytest.mark.parametrize("arguments", [["new"], ["new", "--strict"], ["."]])
def test_without_schemas_and_export_nothing_can_be_made(tmp_path: Path, arguments: list[str]) -> None:
    assert "--entities PATH, --export DIR" in refused(*arguments, at=tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    said = refused(".", "--example", "blog", at=tmp_path)
    assert f"{tmp_path} is not empty (src) and has no b44.toml" in said
    (tmp_path / "file").write_text("")
    assert "is no folder" in refused("file", "--example", "blog", at=tmp_path)


def test_a_folder_of_a_new_repository_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert run(".", "--example", "blog", at=tmp_path).exit_code == 0


def test_a_file_of_the_app_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "b44.toml").write_text("[app]\nnom = 'x'\n")
    assert "b44.toml:2: unknown key app.nom" in refused(".", "--example", "blog", at=tmp_path)


def test_an_example_takes_no_schemas(tmp_path: Path) -> None:
    assert "--example goes without" in refused("new", "--example", "blog", "--entities", "x", at=tmp_path)


# -- schemas and export ------------------------------------------------------------------------------------------------


def test_what_was_given_stands_in_the_file_and_need_not_be_given_again(
    tmp_path: Path, asked: list[tuple[Path | None, Path | None, Overrides]]
) -> None:
    first = run("app", "--entities", "entities", "--export", "data/x", "--name", 'Fo"rum', "--strict", at=tmp_path)
    assert first.exit_code == 0
    folder = tmp_path / "app"
    app = tomllib.loads((folder / "b44.toml").read_text())["app"]
    assert app == {"name": 'Fo"rum', "entities": "../entities", "export": "../data/x", "strict": True}
    again = run(".", at=folder)
    assert again.stdout.startswith("Nothing has changed")
    for entities, export, overrides in asked:
        assert (entities, export) == (tmp_path / "entities", tmp_path / "data" / "x")
        assert (overrides.app, overrides.strict) == ('Fo"rum', True)


def test_the_last_line_says_what_there_is_and_what_is_next(
    tmp_path: Path, asked: list[tuple[Path | None, Path | None, Overrides]]
) -> None:
    result = run("app", "--entities", "entities", at=tmp_path)
    assert result.stdout.splitlines()[-2:] == [
        "1 table, 1 reference, 1 open entity; 1 notice (DECISIONS.md)",
        "next: cd app && b44 migrate --export DIR",
    ]
    assert result.stderr == "notice: entities/Odd.json: no JSON: left out\n"
    assert run(".", at=tmp_path / "app").stdout.endswith("next: b44 migrate --export DIR\n")


def test_an_override_changes_what_is_generated_and_the_file_itself_is_kept(
    tmp_path: Path, asked: list[tuple[Path | None, Path | None, Overrides]]
) -> None:
    run("app", "--entities", "entities", at=tmp_path)
    folder = tmp_path / "app"
    with (folder / "b44.toml").open("a") as file:
        file.write('[entities.Reply]\ntable = "answers"\n')

    shown = run(".", "--dry-run", at=folder)
    assert (folder / "sql/tables/replies.sql").exists()
    result = run(".", at=folder)

    for one in (shown, result):
        assert "removed: sql/tables/replies.sql" in one.stdout
        assert "written: sql/tables/ (1 file)" in one.stdout
        assert "kept: b44.toml" in one.stdout
    assert "Nothing is written (--dry-run)." in shown.stdout
    assert [path.name for path in (folder / "sql/tables").iterdir()] == ["answers.sql"]
    assert 'table = "answers"' in (folder / "b44.toml").read_text()


def test_an_edited_file_is_kept_and_the_difference_is_shown(
    tmp_path: Path, asked: list[tuple[Path | None, Path | None, Overrides]]
) -> None:
    run("app", "--entities", "entities", at=tmp_path)
    file = tmp_path / "app" / "sql" / "tables" / "replies.sql"
    file.write_text("-- mine\n")

    result = run("app", "--name", "other", at=tmp_path)

    assert file.read_text() == "-- mine\n"
    assert file.with_name("replies.sql.new").read_text() == "-- other\n"
    assert (
        "--- sql/tables/replies.sql\n+++ sql/tables/replies.sql.new\n@@ -1 +1 @@\n--- mine\n+-- other\n"
        in result.stdout
    )
    assert "merge sql/tables/replies.sql.new into it" in result.stderr
    again = run(".", at=tmp_path / "app")
    assert again.stdout.startswith("Nothing has changed")
    # Until the file beside it is gone, it is told of.
    assert "sql/tables/replies.sql.new is still to be merged" in again.stderr
    file.with_name("replies.sql.new").unlink()
    assert "merged" not in run(".", at=tmp_path / "app").stderr


def test_a_constraint_that_has_moved_out_of_an_edited_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = "alter table boats add constraint {} check (true);\n"
    files: dict[PurePath, str] = {PurePosixPath("sql/constraints/boats.sql"): added.format("one") + added.format("two")}

    def generate(
        entities: Path | None, export: Path | None, source: Path | None, overrides: Overrides
    ) -> tuple[App, Mapping[PurePath, str]]:
        return replies(), files

    monkeypatch.setattr(generation, "generate", generate)
    run("app", "--entities", "entities", at=tmp_path)
    edited = tmp_path / "app/sql/constraints/boats.sql"
    edited.write_text("-- mine\n" + edited.read_text())
    files[PurePosixPath("sql/constraints/boats.sql")] = added.format("one")
    assert "stands" not in run("app", at=tmp_path).stderr
    files[PurePosixPath("sql/constraints/others.sql")] = added.format("two")
    for _ in range(2):
        said = run("app", at=tmp_path).stderr
        assert "take it out of sql/constraints/boats.sql" in said and "two stands in" in said


def test_an_option_that_an_edited_file_does_not_keep_is_named(
    tmp_path: Path, asked: list[tuple[Path | None, Path | None, Overrides]]
) -> None:
    run("app", "--entities", "entities", at=tmp_path)
    file = tmp_path / "app" / "b44.toml"
    file.write_text(file.read_text() + "# mine\n")
    assert "or the next b44 init goes without --open" in run("app", "--open", at=tmp_path).stderr
    file.write_text((tmp_path / "app" / "b44.toml.new").read_text() + "# mine\n")
    assert "goes without" not in run("app", "--open", at=tmp_path).stderr


def test_of_many_differences_those_of_edited_files_are_all_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{number}\n" for number in range(150))

    def generate(*_: object) -> tuple[App, Mapping[PurePath, str]]:
        return replies(), {PurePosixPath(f"sql/{name}.sql"): text for name in "abc"}

    monkeypatch.setattr(generation, "generate", generate)
    run("app", "--entities", "entities", at=tmp_path)
    (tmp_path / "app" / "sql" / "c.sql").write_text("mine\n")
    text = text.replace("1", "one")

    lines = run("app", at=tmp_path).stdout.splitlines()

    assert [line for line in lines if line.startswith("+++ ")] == ["+++ sql/c.sql.new", "+++ sql/a.sql"]
    assert "+one49" in lines[lines.index("+++ sql/c.sql.new") : lines.index("--- sql/a.sql")]
    assert "… and 1 more updated file differs, none of them edited by hand" in lines


def test_overrides_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "b44.toml").write_text(
        "[app]\nname = 'forum'\nstrict = true\n"
        "[entities.Reply]\ntable = 'answers'\nfirst = '2023-05'\n"
        "[entities.Reply.fields.topic]\ncolumn = 'discussion_id'\ntype = 'uuid'\nreferences = 'Discussion'\n"
        "[entities.Reply.fields.ref]\nreferences = false\n"
        "[entities.Draft]\nleave_out = true\nfirst = false\n"
    )
    folder = find_app_folder(tmp_path)
    assert folder is not None
    found = overrides_of(folder)
    assert (found.app, found.strict, found.left_out) == ("forum", True, {"Draft"})
    assert (found.tables, found.not_partitioned) == ({"Reply": "answers"}, {"Draft"})
    assert {entity: str(month) for entity, month in found.first_periods.items()} == {"Reply": "2023-05-01"}
    topic = ("Reply", "topic")
    assert (found.columns, found.types) == ({topic: "discussion_id"}, {topic: ColumnType.UUID})
    assert found.references == {topic: "Discussion", ("Reply", "ref"): ""}


def test_a_path_is_written_from_the_folder_unless_that_goes_by_way_of_the_root(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    assert written_path(tmp_path / "x" / "export", folder) == "../x/export"
    assert written_path(folder / "export", folder) == "export"
    assert written_path(Path("/elsewhere/export"), folder) == "/elsewhere/export"


# -- with what reads schemas and writes SQL -----------------------------------------------------------------------------

DISCUSSION = {
    "name": "Discussion",
    "type": "object",
    "properties": {"title": {"type": "string"}},
    "required": ["title"],
}
REPLY = {
    "name": "Reply",
    "type": "object",
    "properties": {
        "discussion_id": {"type": "string"},
        "stars": {"type": "integer"},
        "mood": {"type": "string", "enum": ["good", "bad"]},
    },
    "rls": {"read": {"user_condition": {"role": "admin"}}},
}


@pytest.fixture
def forum(tmp_path: Path) -> Path:
    """A folder with the schemas, the source and an export of an app."""
    for name, text in {
        "base44/entities/Discussion.jsonc": json.dumps(DISCUSSION),
        "base44/entities/Reply.jsonc": json.dumps(REPLY),
        "base44/entities/Odd.jsonc": "{",
        "src/App.jsx": "base44.functions.invoke('mail'); base44.entities.Reply.list()",
        "export/Discussion_export.csv": '"id","title"\n"0123456789abcdef01234567","x"',
        "export/Reply_export.csv": '"id","discussion_id","stars","mood","extra"\n'
        '"1123456789abcdef01234567","0123456789abcdef01234567","5","good","e"\n'
        '"2123456789abcdef01234567","ffffffffffffffffffffffff","7","odd","e"',
        "export/Visit.json": '[{"id": "3123456789abcdef01234567", "page": "/"}]',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_folder_is_made_of_schemas_and_an_export_and_again_without_a_difference(forum: Path) -> None:
    given = ("--entities", "base44/entities", "--export", "export", "--source", "src")
    first = run("app", *given, at=forum)

    assert first.exit_code == 0
    folder = forum / "app"
    catalog = load_catalog(folder / "sql")
    assert set(catalog.entities) == {"Discussion", "Reply", "User", "Visit"}
    assert [line for line in first.stderr.splitlines() if "Odd.jsonc" in line]
    page = (folder / "DECISIONS.md").read_text()
    for said in ("`replies.discussion_id`", "**everyone**", "| `functions.invoke` | 1 | 1 | `mail` 1 |", "Odd.jsonc"):
        assert said in page
    again = run(".", at=folder)
    assert again.stdout.startswith("Nothing has changed")
    assert again.stdout.splitlines()[-2].startswith("4 tables, ")
    assert again.stdout.splitlines()[-1] == "next: b44 migrate"


def test_an_override_is_followed_through_to_the_sql_files(forum: Path) -> None:
    run("app", "--entities", "base44/entities", "--export", "export", at=forum)
    folder = forum / "app"
    with (folder / "b44.toml").open("a") as file:
        file.write(
            "[entities.Reply]\ntable = 'answers'\n[entities.Visit]\nleave_out = true\n"
            "[entities.Reply.fields.discussion_id]\nreferences = false\n"
        )
    result = run(".", at=folder)

    assert "removed: sql/tables/replies.sql" in result.stdout
    catalog = load_catalog(folder / "sql")
    assert catalog.entities == {"User": "users", "Discussion": "discussions", "Reply": "answers"}
    assert "references discussions" not in "".join(path.read_text() for path in (folder / "sql").rglob("*answers*.sql"))
    assert "- `Visit`" in (folder / "DECISIONS.md").read_text()
    assert run(".", at=folder).stdout.startswith("Nothing has changed")


def test_an_export_alone_makes_an_app(forum: Path) -> None:
    result = run("alone", "--export", "export", at=forum)
    assert result.exit_code == 0
    catalog = load_catalog(forum / "alone" / "sql")
    assert set(catalog.entities) == {"Discussion", "Reply", "User", "Visit"}
    assert run(".", at=forum / "alone").stdout.startswith("Nothing has changed")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--entities", "nowhere"], "nowhere"),
        (["--entities", "base44/entities", "--export", "nowhere"], "there is no such export folder"),
        (["--entities", "base44/entities", "--source", "nowhere"], "no such folder of source"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_nothing_is_written(forum: Path, arguments: list[str], said: str) -> None:
    assert said in refused("app", *arguments, at=forum)


# -- DECISIONS.md ------------------------------------------------------------------------------------------------------


def test_what_is_open_to_everyone_comes_first_and_each_topic_has_a_table() -> None:
    page = decisions_page(
        replies(
            decisions=(
                Decision("replies.count", "type", "numeric", "number in the schema"),
                Decision(
                    "replies.discussion_id", "reference", "→ discussions", "name matches, 4 of 15 | values\nfound"
                ),
                Decision("replies.x", "guess", "something", "else"),
            )
        )
    )
    headings = [line.lstrip("# ") for line in page.splitlines() if line.startswith("#")]
    assert headings == [
        "Decisions: forum",
        "Rules: who may do what in Base44",
        "Restricted",
        "References",
        "Types",
        "Guess",
        "Notices",
    ]
    assert page.index("**everyone**") < page.index("the role admin")
    assert "| `replies.discussion_id` | → discussions | name matches, 4 of 15 \\| values found |" in page
    assert "- `Odd.json`: no JSON: left out" in page


def test_what_the_data_speaks_against_comes_first_and_rows_that_say_the_same_are_one() -> None:
    decisions = (
        Decision("boats.crew_id", "reference", "→ crews", "name matches"),
        Decision(
            "boats.berth_id", "reference", "→ berths, NOT VALID", "name matches, 1 of 2 values found", doubtful=True
        ),
        Decision("crews.cook_id", "reference", "→ crews", "name matches"),
        Decision(
            "crews.berth_id", "reference", "→ berths, NOT VALID", "name matches, 1 of 2 values found", doubtful=True
        ),
        Decision("crews.length", "type", "is numeric", "the schema allows it"),
    )
    page = decisions_page(replies(decisions=decisions))
    rows = [line for line in page.splitlines() if "_id`" in line]
    # A count that is the same by chance joins no two tables.
    assert [row.split(" | ")[0] for row in rows] == [
        "| `boats.berth_id`",
        "| `crews.berth_id`",
        "| `boats.crew_id`, `crews.cook_id`",
    ]
    linked = [line.partition("](")[2] for line in page.splitlines() if line.startswith("- [")]
    assert [link.partition(")")[0] for link in linked] == [
        "#rules-who-may-do-what-in-base44",
        "#references",
        "#notices",
    ]
    assert "2 of 4" in page


@pytest.mark.parametrize("name", ["Reply", "a|b", "a`b", "`", "every one"])
def test_open_entities_are_read_back_from_the_page(name: str) -> None:
    closed = Rule("Closed", "read", "", Audience.SOME, "the role everyone")
    opened = [Rule(one, "read", "", Audience.EVERYONE, "everyone") for one in ("First", name, "Last")]
    of_field = Rule("Field", "read", "x", Audience.EVERYONE, "everyone")
    page = decisions_page(App("x", (), rules=(closed, *opened, of_field)))
    assert open_entities_of(page) >= {name, "First", "Last"}
    assert not open_entities_of(page) & {"Closed", "Field.x"}
    assert open_entities_of(decisions_page(App("x", (), rules=(closed,)))) == frozenset()


def test_the_page_names_the_size_from_which_tables_are_partitioned_where_an_export_was_looked_at() -> None:
    described = replies()
    assert "## Partitions" not in decisions_page(described)
    page = decisions_page(replace(described, tables=(replace(described.tables[0], records=4711),)))
    said = page.partition("## Partitions")[2]
    assert "1,000,000" in said and "`replies`, has 4,711" in said


@pytest.mark.parametrize("opened", [False, True])
def test_the_page_says_who_gets_the_tables(opened: bool) -> None:
    page = decisions_page(replace(replies(), opened=opened))
    assert ("`b44 init . --open`" in page, "`open = true`" in page) == (not opened, opened)


def test_what_is_not_understood_opens_nothing_and_is_shown() -> None:
    rule = Rule("Reply", "read", "", Audience.UNKNOWN, "", source="created_by = `current_user`")
    known = Rule("Topic", "read", "", Audience.SOME, "the role admin")
    page = decisions_page(App("x", (), rules=(rule, known), left_out=("Draft",)))
    # It is not said to be restricted.
    assert "| `Reply` |" not in page and "| `Topic` |" in page
    assert "1 entity with rules that cannot be read" in page
    assert "| `` created_by = `current_user` `` | `Reply` (read) |" in page
    assert "**everyone**" not in page
    assert "- `Draft`" in page
