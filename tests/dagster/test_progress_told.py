"""What a run tells of itself while it goes on: its phases and its steps, numbered."""

from pathlib import Path

import dagster as dg
import pytest

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.orchestration.resources import Migration

Told = tuple[str, int, int]


def run(directory: Path, selection: list[dg.AssetKey] | None = None) -> list[Told]:
    """What is told by a run of an export, its table, what stands on it and its check, none of which does anything."""
    told: list[Told] = []
    settings = Settings.load({"B44_DATABASE_URL": "postgresql://nobody@localhost/none"}, directory)
    migration = Migration(settings, load_catalog(settings.sql_dir), progress=lambda *what: told.append(what))

    def asset(key: dg.AssetKey, *upstream: dg.AssetKey) -> dg.AssetsDefinition:
        @dg.asset(key=key, deps=upstream)
        def step(context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]) -> None:
            with migration.session(context):
                pass

        return step

    exported, users = dg.AssetKey(["base44", "users"]), dg.AssetKey("users")

    @dg.multi_asset_check(name="users_parity", specs=[dg.AssetCheckSpec("row_parity", asset=users)])
    def parity(context: dg.AssetCheckExecutionContext, migration: dg.ResourceParam[Migration]) -> dg.AssetCheckResult:
        with migration.session(context):
            return dg.AssetCheckResult(passed=True)

    job = dg.Definitions(
        assets=[asset(exported), asset(users, exported), asset(dg.AssetKey("users_schema"), users)],
        asset_checks=[parity],
        jobs=[dg.define_asset_job("everything", dg.AssetSelection.all())],
        resources={"migration": migration},
    ).resolve_job_def("everything")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(
            instance=instance,
            asset_selection=selection,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    return told


def test_a_step_tells_its_phase_and_its_number_as_it_begins(tmp_path: Path) -> None:
    told = run(tmp_path)

    assert told[:4] == [
        ("phase reading", 1, 4),
        ("step reading users", 1, 4),
        ("phase loading", 2, 4),
        ("step loading users", 2, 4),
    ]
    assert {what for what, _, _ in told[4:] if what.startswith("step")} == {
        "step schema users_schema",
        "step checking users_parity",
    }
    assert [done for what, done, _ in told if what.startswith("step")] == [1, 2, 3, 4]
    phases = [done for what, done, _ in told if what.startswith("phase")]
    assert phases == sorted(phases)
    # Where the check ran before the last object of the schema was made, no step was left for a phase of its own.
    assert phases[-1] == (4 if told[-1][0] == "step checking users_parity" else 3)


@pytest.mark.parametrize("chosen", [["users"], ["users", "users_schema"]])
def test_a_part_of_a_run_counts_its_own_phases_and_steps(chosen: list[str], tmp_path: Path) -> None:
    told = run(tmp_path, [dg.AssetKey(name) for name in chosen])

    assert told[0] == ("phase loading", 1, len({*chosen, "users_parity"}))
    assert told[1] == ("step loading users", 1, len({*chosen, "users_parity"}))
