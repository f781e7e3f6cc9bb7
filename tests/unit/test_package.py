"""What is published: a wheel and a source distribution with all that the program reads, which work wherever they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from tests.helpers.paths import REPOSITORY
from tests.helpers.workers import made_once

BUILD = """
import os, sys
from hatchling.build import build_sdist, build_wheel
os.makedirs(sys.argv[1])
build_sdist(sys.argv[1])
build_wheel(sys.argv[1])
print("built")
"""


@pytest.fixture
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, made once for all workers from what git has."""
    shared = tmp_path_factory.getbasetemp().parent
    folder = shared / "published"

    def build() -> str:
        clone = shared / "clone_to_publish"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", REPOSITORY, clone], check=True)
        addressed = os.environ | {"B44_PROJECT_URL": "https://code.example/team/b44-assets/"}
        subprocess.run([sys.executable, "-c", BUILD, folder], cwd=clone, env=addressed, check=True, capture_output=True)
        return "built"

    made_once(shared / "published.txt", build)
    return folder


def read_at_run_time() -> set[str]:
    """Files of the package that are no modules, by their path in a wheel."""
    listed = subprocess.run(
        ["git", "ls-files", "b44_assets", "sql", "dagster.yaml", "workspace.yaml", ".env.example"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return {name if name.startswith("b44_assets/") else f"b44_assets/{name}" for name in listed}


def test_the_wheel_has_every_file_of_the_program_and_says_that_it_is_typed(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
        [entries] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/entry_points.txt")]
    assert read_at_run_time() - names == set()
    assert "b44_assets/py.typed" in names
    assert {name for name in names if name.startswith(("tests/", "benchmarks/"))} == set()
    assert ("Classifier: Typing :: Typed" in metadata, "License-Expression: Apache-2.0" in metadata) == (True, True)
    assert ("b44 = b44_assets.__main__:main" in entries, "[dagster_dg_cli.registry_modules]" in entries) == (True, True)


def test_a_package_names_the_addresses_that_its_builder_gives(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = "https://code.example/team/b44-assets"
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        urls = [line for line in archive.read(name).decode().splitlines() if line.startswith("Project-URL: ")]
    assert urls == [
        f"Project-URL: Source, {home}",
        f"Project-URL: Documentation, {home}/blob/main/docs/index.md",
        f"Project-URL: Changelog, {home}/blob/main/CHANGELOG.md",
        f"Project-URL: Issues, {home}/issues",
    ]
    monkeypatch.delenv("B44_PROJECT_URL", raising=False)
    at_home = ProjectMetadata(str(REPOSITORY), PluginManager())
    assert at_home.core.urls == {}


def test_the_source_distribution_has_what_the_tests_need(built: Path) -> None:
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "tests/conftest.py",
        "sql/tables/users.sql",
    } <= names
    assert [name for name in names if name.startswith((".b44", ".venv"))] == []


def test_the_command_of_a_wheel_works_in_another_folder_as_of_pipx_or_uvx(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    installed, work = tmp_path / "installed", tmp_path / "work"
    work.mkdir()
    # As these do it, but that what it depends on is not installed once more.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", installed], check=True)
    [packages] = installed.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [sys.executable, "-m", "pip", "--python", installed / "bin" / "python"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)

    def run(program: str, *arguments: str) -> str:
        told = subprocess.run(
            [installed / "bin" / program, *arguments], cwd=work, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        return told.stdout

    run("b44", "sample", "export", "--users", "3", "--posts", "3")
    run("b44", "init", "blog", "--example", "blog")
    assert (work / "blog" / "sql" / "tables" / "users.sql").is_file()
    found = run("python", "-c", "import b44_assets; print(b44_assets.__file__)")
    assert Path(found.strip()).is_relative_to(installed)
