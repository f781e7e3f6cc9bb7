"""Where an app folder is found, what of it a command takes, and what its `b44.toml` may say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.config.app_folder import AppFolder, find_app_folder, read_app_file
from b44_assets.config.settings import Settings
from b44_assets.errors import SettingsError
from b44_assets.runs.instance import prepare_dagster


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "sql" / "tables").mkdir(parents=True)
    (folder / "b44.toml").write_text('[app]\nexport = "../export"\n')
    return folder


def fault(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        read_app_file(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


def found(directory: Path) -> AppFolder:
    folder = find_app_folder(directory)
    assert folder is not None
    return folder


@pytest.mark.parametrize("below", ["", "sql", "sql/tables"])
def test_a_command_works_on_the_app_folder_that_it_runs_in(app: Path, below: str) -> None:
    settings = Settings.load({}, app / below)

    assert (settings.sql_dir, settings.home) == (app / "sql", app / ".b44")
    assert settings.export_dir == app.parent / "export"


def test_the_nearest_folder_is_the_app(app: Path) -> None:
    inner = app / "other"
    inner.mkdir()
    (inner / "b44.toml").write_text("")

    assert found(inner).path == inner
    assert (found(inner).name, found(app).name) == ("other", "app")


def test_without_an_app_folder_nothing_of_one_is_taken(tmp_path: Path) -> None:
    assert find_app_folder(tmp_path) is None


def test_the_app_is_named_by_an_option_from_elsewhere(app: Path, tmp_path: Path) -> None:
    settings = Settings.load({"B44_SQL_DIR": "elsewhere"}, tmp_path, app=Path("app"))

    assert (settings.sql_dir, settings.home) == (app / "sql", app / ".b44")


def test_the_environment_stands_above_the_folder_and_the_folder_of_an_option_above_its_sql_dir(
    app: Path, tmp_path: Path
) -> None:
    environ = {"B44_SQL_DIR": "mine", "B44_HOME": "home", "B44_EXPORT_DIR": "given"}
    settings = Settings.load(environ, app)
    assert (settings.sql_dir, settings.home, settings.export_dir) == (app / "mine", app / "home", app / "given")

    settings = Settings.load(environ, tmp_path, app=app)
    assert (settings.sql_dir, settings.home, settings.export_dir) == (
        app / "sql",
        tmp_path / "home",
        tmp_path / "given",
    )


def test_an_option_stands_above_the_file_of_the_app(app: Path) -> None:
    assert Settings.load({}, app, export_dir=Path("other")).export_dir == app / "other"


def test_the_file_of_variables_is_that_of_the_app_and_its_paths_start_there(app: Path, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("B44_BATCH_SIZE=7\nB44_DATABASE_URL=postgresql://elsewhere\n")
    (app / ".env").write_text("B44_EXPORT_DIR=mine\nB44_WAL_DIR=wal\n")

    settings = Settings.load({"B44_WAL_DIR": "given"}, tmp_path, app=app)

    assert settings.export_dir == app / "mine"
    assert settings.wal_dir == tmp_path / "given"
    assert settings.database_url is None
    assert settings.batch_size != 7


@pytest.mark.parametrize(("name", "said"), [("empty", "has no b44.toml"), ("nowhere", "is not there")])
def test_a_folder_that_is_no_app_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=said):
        Settings.load({}, tmp_path, app=Path(name))


def test_all_that_may_stand_in_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "b44.toml").write_text(
        '[app]\nname = "Shop"\nentities = "../entities"\nstrict = true\n'
        '[entities.AuditLog]\ntable = "audit_entries"\nfirst = "2023-01"\n'
        "[entities.Draft]\nleave_out = true\n"
        '[entities.Reply.fields."Topic Of"]\ncolumn = "discussion_id"\ntype = "uuid"\nreferences = "Discussion"\n'
        "[entities.Reply.fields.note_id]\nreferences = false\n"
    )

    folder = found(tmp_path)

    assert (folder.name, folder.entities_dir, folder.export_dir) == ("Shop", tmp_path.parent / "entities", None)
    assert folder.file.app.strict
    entities = folder.file.entities
    assert (entities["AuditLog"].table, entities["AuditLog"].first) == ("audit_entries", "2023-01")
    assert entities["Draft"].leave_out
    topic = entities["Reply"].fields["Topic Of"]
    assert (topic.column, topic.type, topic.references) == ("discussion_id", "uuid", "Discussion")
    assert entities["Reply"].fields["note_id"].references is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[app]\nname = 'x'\ncolour = 'red'\n", ":3: unknown key app.colour; there are name, entities, export, "),
        ("[tables]\n", ":1: unknown key tables; there are app, entities"),
        ("[app]\nB44_HOME = 'x'\n", ":2: unknown key app.B44_HOME; there are name, entities, export, source,"
         " example, strict, open; settings stand in .env or the environment"),
        ("\n[entities.Post]\ntabel = 'x'\n", ":3: unknown key entities.Post.tabel; there are table, first, leave_out, fields"),
        ("[entities.P.fields.x]\nname = 'y'\n", ":2: unknown key entities.P.fields.x.name; there are column, type, references"),
        ("[entities.Post]\ntable = 'Posts'\n", ":2: entities.Post.table must be a name in lower case"),
        ("[entities.Post]\n\nfirst = '2023'\n", ":3: entities.Post.first must be a month such as 2020-01, or false"),
        ("[entities.Post]\nleave_out = 'yes'\n", ":2: entities.Post.leave_out must be a valid boolean"),
        ("[entities.P.fields.x]\ntype = 'varchar'\n", ":2: entities.P.fields.x.type must be 'text', 'text[]'"),
        ("[entities.P.fields.x]\nreferences = true\n", ":2: entities.P.fields.x.references must be the name of an entity, or"),
        ("[app]\nname = ''\n", ":2: app.name must be not blank"),
        ("app = 3\n", ":1: app must be a table of keys"),
        ("[entities]\nPost = 3\n", ":2: entities.Post must be a table of keys"),
        ("[app]\nname = \n", ":2: no TOML: Invalid value"),
        ("[app]\nname = 'x'\nname = 'y'\n", ":3: no TOML: Cannot overwrite a value"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert fault(tmp_path / "b44.toml", text).startswith(said)


@given(
    where=st.sampled_from(
        ["[app]\nexport = '{}'", "[app]\nname = 1\nentities = '{}'", "[database]\nurls = ['{}']", "'{}' = 1"]
    ),
    scheme=st.sampled_from(["postgresql", "postgres", "https", "s3", "smtps"]),
    user=st.sampled_from(["", "me", "a.b-c%40d"]),
    password=st.text("abcXYZ019-_.%$!", min_size=4),
)
def test_a_password_is_refused_wherever_it_stands_and_never_shown(
    tmp_path_factory: pytest.TempPathFactory, where: str, scheme: str, user: str, password: str
) -> None:
    path = tmp_path_factory.mktemp("app") / "b44.toml"
    said = fault(path, where.format(f"{scheme}://{user}:{password}@host/db"))
    assert "no place for one" in said
    assert f":{password}@" not in said


def test_an_address_without_a_password_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "b44.toml").write_text("[app]\nname = 'https://me@example.org:8080/app'\n")
    assert found(tmp_path).name == "https://me@example.org:8080/app"


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "b44.toml").write_bytes(b"[app]\nname = '\xff'\n")
    with pytest.raises(SettingsError, match=r"b44\.toml: not UTF-8 text at byte 14"):
        find_app_folder(tmp_path)


def test_dagster_s_processes_find_the_same_paths_wherever_they_start(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app / ".env").write_text("B44_PG_BIN=bin\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        os, "environ", {"DAGSTER_HOME": str(tmp_path), "B44_WAL_DIR": "wal", "B44_BACKUP_URL": "s3://b/f"}
    )
    settings = Settings.load(app=Path("app"))
    prepare_dagster(settings)

    there = Settings.load(directory=app / "sql")
    names = ("wal_dir", "pg_bin", "backup_url", "home", "sql_dir", "export_dir")
    assert {name: getattr(there, name) for name in names} == {name: getattr(settings, name) for name in names}
    assert (there.wal_dir, there.pg_bin) == (tmp_path / "wal", app / "bin")
