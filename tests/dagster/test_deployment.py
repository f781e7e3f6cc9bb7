"""What docs/deployment.md has one install: each file is whole, and says the same as the others."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from b44_assets.postgres.embedded import EmbeddedServer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "deployment.md").read_text()
COMPOSE = yaml.safe_load((DOCS / "compose.yaml").read_text())
OURS = ("code", "webserver", "daemon")
PROGRAMS = {
    "b44-code": "dagster code-server start -m b44_assets.definitions --location-name b44_assets",
    "b44-webserver": "dagster-webserver -w /etc/b44/workspace.yaml",
    "b44-daemon": "dagster-daemon run -w /etc/b44/workspace.yaml",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_process_has_a_unit_that_ends_runs_gently(name: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DOCS / "systemd" / f"{name}.service")
    service = unit["Service"]
    assert service["ExecStart"].startswith(f"/opt/b44/bin/{PROGRAMS[name]}")
    assert (service["KillSignal"], service["EnvironmentFile"]) == ("SIGINT", "/etc/b44/b44.env")
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_compose_has_the_same_processes_on_one_storage() -> None:
    services = COMPOSE["services"]
    commands = {service["command"].split(" -w ")[0] for name, service in services.items() if name != "database"}
    assert {c.partition(" -h")[0] for c in commands} == {program.split(" -w ")[0] for program in PROGRAMS.values()}
    storages = {services[name]["environment"]["DAGSTER_PG_URL"] for name in OURS}
    assert len(storages) == 1
    # The UI has no login: it is not for the network.
    assert services["webserver"]["ports"] == ["127.0.0.1:3000:3000"]


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_compose_has_no_superuser_every_setting_and_backups_outside(name: str) -> None:
    service = COMPOSE["services"][name]
    environment = service["environment"]
    for setting in ("B44_DATABASE_URL", "DAGSTER_PG_URL"):
        assert environment[setting].startswith("postgresql://b44:${B44_PASSWORD:?}@database/")
    assert environment["POSTGRES_PASSWORD"] == ""
    assert service["env_file"] == [{"path": ".env", "required": False}]
    folders = dict(mount.removesuffix(":ro").rsplit(":", 1)[::-1] for mount in service["volumes"])
    assert environment["B44_BACKUP_URL"].endswith(":-/srv/b44/backups}")
    assert folders == {"/srv/b44/export": "${EXPORT_DIR:-./export}", "/srv/b44/backups": "${BACKUP_DIR:-./backups}"}


def test_what_compose_has_the_server_begin_with_makes_a_role_that_can_migrate(
    tmp_path: Path, embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = re.sub(r"\bb44\b", "b44_compose", COMPOSE["configs"]["databases"]["content"])
    script = re.sub(r"database (app|dagster)\b", r"database b44_compose_\1", script)
    (tmp_path / "databases.sql").write_text(script)
    monkeypatch.setenv("B44_PASSWORD", "it's secret")
    try:
        psql = [embedded.bin_dir / "psql", embedded.url("postgres"), "-X", "-q", "-v", "ON_ERROR_STOP=1"]
        subprocess.run([*psql, "-f", tmp_path / "databases.sql"], check=True)
        with psycopg.connect(embedded.url("postgres")) as conn:
            rights = (
                "select rolsuper, rolcreatedb, rolcreaterole, rolcanlogin, pg_has_role(oid, 'pg_monitor', 'member')"
            )
            assert conn.execute(f"{rights} from pg_roles where rolname = 'b44_compose'".encode()).fetchone() == (
                False, True, True, True, True,
            )  # fmt: skip
            owned = "select datname from pg_database where pg_get_userbyid(datdba) = 'b44_compose' order by 1"
            assert conn.execute(owned.encode()).fetchall() == [("b44_compose_app",), ("b44_compose_dagster",)]
    finally:
        with psycopg.connect(embedded.url("postgres"), autocommit=True) as conn:
            for statement in (
                "database if exists b44_compose_app",
                "database if exists b44_compose_dagster",
                "role if exists b44_compose",
            ):
                conn.execute(f"drop {statement}".encode())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "systemd", tmp_path, dirs_exist_ok=True)
    for unit in tmp_path.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/b44/bin/", f"{Path(sys.executable).parent}/"))
    units = sorted(str(unit) for unit in tmp_path.glob("*.service"))
    said = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if str(tmp_path) in line or "b44" in line] == []
    assert said.returncode == 0


def test_an_app_of_ones_own_is_where_the_code_location_starts() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read([DOCS / "systemd" / "b44-code.service", DOCS / "systemd" / "b44-code.service.d" / "app.conf"])
    folder = unit["Service"]["WorkingDirectory"]
    assert folder.startswith(unit["Service"]["ReadWritePaths"]) and folder in PAGE
    assert unit["Service"]["ExecStart"].startswith(f"/opt/b44/bin/{PROGRAMS['b44-code']}")


@pytest.mark.parametrize("name", OURS)
def test_compose_brings_the_folder_of_an_app_where_its_processes_start(name: str) -> None:
    service = yaml.safe_load((DOCS / "compose.app.yaml").read_text())["services"][name]
    [mount] = service["volumes"]
    # An app that is not named is no blog.
    parts = re.fullmatch(r"\$\{APP_DIR:\?[^}]+\}:(.*):(.*)", mount)
    assert parts is not None and parts.groups() == (service["working_dir"], "ro")
    assert all(parts[1] not in mounted for mounted in COMPOSE["services"][name]["volumes"])
    assert "COMPOSE_FILE=compose.yaml:compose.app.yaml" in PAGE


def test_the_image_has_the_configuration_that_its_services_use() -> None:
    image = (DOCS / "Containerfile").read_text()
    assert COMPOSE["services"]["code"]["build"] == {"context": "..", "dockerfile": "docs/Containerfile"}
    for name in ("webserver", "daemon"):
        workspace = COMPOSE["services"][name]["command"].split(" -w ")[1].split()[0]
        assert f"> {workspace}" in image
    home = re.search(r"DAGSTER_HOME=(\S+)", image)
    assert home is not None and f"dagster.yaml {home[1]}/" in image
    assert ("USER b44" in image, "-c constraints.txt" in image) == (True, True)


def test_services_find_the_code_location_where_it_listens() -> None:
    [location] = yaml.safe_load((DOCS / "workspace-services.yaml").read_text())["load_from"]
    assert location["grpc_server"]["location_name"] == "b44_assets"
    unit = (DOCS / "systemd" / "b44-code.service").read_text()
    assert f"-h {location['grpc_server']['host']} -p {location['grpc_server']['port']}" in unit


@pytest.mark.parametrize("launcher", ["dagster_docker", "dagster_k8s", "dagster_celery"])
def test_a_launcher_of_the_page_is_added_to_the_configuration_as_it_stands(launcher: str, tmp_path: Path) -> None:
    [section] = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if f"module: {launcher}" in block]
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text() + section)
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["run_launcher"]["module"].partition(".")[0] == launcher
    assert config["storage"]["custom"]["class"] == "PostgresStorage"


def test_every_file_that_the_page_links_to_is_there() -> None:
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if not (DOCS / link).exists()] == []


@pytest.mark.parametrize("program", ["dagster-webserver", "dagster-daemon"])
def test_the_programs_of_the_units_are_installed(program: str) -> None:
    assert (Path(sys.executable).parent / program).exists()


def test_the_code_server_knows_the_options_of_its_unit() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "dagster", "code-server", "start", "--help"], capture_output=True, text=True, check=True
    )
    for option in ("--module-name", "--location-name", "--host", "--port"):
        assert option in said.stdout


def test_the_image_takes_what_it_is_built_from_and_no_secrets_that_lie_beside(tmp_path: Path) -> None:
    lines = (DOCS / "Containerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert {"b44_assets", "sql", "pyproject.toml", "constraints.txt"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    assert not {".", "docs", ".env"} & set(copied)
    for name in copied:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / Path(name).name)
    build = [sys.executable, "-c", "import hatchling.build; hatchling.build.build_wheel('built')"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    # The page has the folder of backups given to it.
    assert any("useradd" in line and "--uid 999 " in line for line in lines) and "chown 999 backups" in PAGE
