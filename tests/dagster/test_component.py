"""The graph of an app folder as a component of a team's own Dagster project, made and checked as `dg` does it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Generator
from contextlib import chdir
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster.components.core.component_tree import ComponentTreeException
from dagster_dg_cli.cli import cli as dg_cli

from b44_assets.errors import SettingsError
from b44_assets.orchestration.component import Base44Migration
from tests.helpers.paths import REPOSITORY

TYPE = "b44_assets.Base44Migration"

# Dagster warns of what it does itself to definitions that a component gives it.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A project of a team with an asset of its own behind a table of an app, whose folder stands beside it."""
    for name in ("B44_DATABASE_URL", "B44_EXPORT_DIR", "B44_SQL_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("B44_HOME", str(tmp_path / "home"))
    defs = tmp_path / "src" / "team" / "defs"
    defs.mkdir(parents=True)
    for package in (defs.parent, defs):
        (package / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "team"\nversion = "1"\n\n[tool.dg]\ndirectory_type = "project"\n\n'
        '[tool.dg.project]\nroot_module = "team"\n'
    )
    (defs / "mailing.py").write_text(
        'import dagster as dg\n\n\n@dg.asset(deps=["customers"])\ndef mailing() -> None: ...\n'
    )
    (defs / "execution.py").write_text(
        "import dagster as dg\n\ndefs = dg.Definitions(executor=dg.multiprocess_executor)\n"
    )
    shutil.copytree(REPOSITORY / "examples" / "shop", tmp_path / "shop")
    (tmp_path / "shop" / "b44.toml").write_text('[app]\nname = "Shop"\n')
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    with chdir(tmp_path):
        yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "team"]:
        del sys.modules[name]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(dg_cli, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_team_has_the_app_beside_its_own_assets(project: Path) -> None:
    run("scaffold", "defs", TYPE, "app", "--folder", "../../../../shop")
    written = (project / "src" / "team" / "defs" / "app" / "defs.yaml").read_text()
    assert (TYPE in written, "../../../../shop" in written) == (True, True)
    run("check", "yaml")
    with dg.DagsterInstance.ephemeral():
        definitions = dg.load_from_defs_folder(path_within_project=project)
    graph = definitions.resolve_asset_graph()
    assert {"customers", "mailing"} <= {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert graph.get(dg.AssetKey("mailing")).parent_keys == {dg.AssetKey("customers")}
    assert (
        dg.AssetKey("customers") in definitions.resolve_job_def("migrate_everything").asset_layer.executable_asset_keys
    )
    # The project has an executor of its own, and the app's jobs have theirs.
    assert definitions.executor is dg.multiprocess_executor
    assert {definitions.resolve_job_def(job.name).executor_def for job in definitions.jobs or ()} == {
        dg.in_process_executor
    }
    assert (project / "home").exists() is False


def test_dg_finds_the_component_and_says_what_it_is_for() -> None:
    assert (TYPE in (found := run("list", "components", "--json")), Base44Migration.__doc__ is not None) == (True, True)
    assert "leaves Base44" in found


def test_a_folder_that_is_no_app_is_one_line(project: Path) -> None:
    (project / "shop" / "b44.toml").unlink()
    run("scaffold", "defs", TYPE, "app", "--folder", "../../../../shop")
    with pytest.raises(ComponentTreeException) as caught:
        dg.load_from_defs_folder(path_within_project=project)
    assert isinstance(caught.value.__cause__, SettingsError)
    assert "shop is no app folder: it has no b44.toml" in str(caught.value.__cause__)
