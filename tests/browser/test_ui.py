"""The whole way of an operator through the UI of `b44 dev`, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import psycopg
import pytest

from b44_assets.backup.encryption import Key
from tests.helpers.code_locations import Place, post, posts, write
from tests.helpers.paths import REPOSITORY
from tests.helpers.servers import free_port
from tests.helpers.traces import CommandLines, of_database, of_folder

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium")
# Without its own traffic, which a machine without a way out would refuse again and again.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LONGEST_WAIT = 150.0
# Where the browser waits: an open page of the UI keeps asking its server.
NOWHERE = "about:blank"
# They must stand nowhere. Locally, the server asks for none.
PASSWORD, WEBHOOK = "marked%3Apassword", "marked-webhook"
DOCUMENTED = REPOSITORY / "docs" / "images"
"""Pictures of the documentation: those of them that are there are made anew where B44_SCREENSHOTS names this folder."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to look at the UI with")


@dataclass(frozen=True)
class Ui:
    """`b44 dev`, listening, over a migrated database."""

    address: str
    place: Place

    def ask(self, query: str) -> Any:
        request = urllib.request.Request(
            f"{self.address}/graphql",
            data=json.dumps({"query": query}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def runs(self) -> list[dict[str, Any]]:
        """The latest first."""
        return self.ask(
            "{ runsOrError { ... on Runs { results { runId status pipelineName assetSelection { path } tags { key value } } } } }"
        )["runsOrError"]["results"]

    def months(self) -> dict[str, int]:
        """Rows by month, as the UI shows them of the latest materializations."""
        nodes = self.ask(
            '{ assetOrError(assetKey: {path: ["posts"]}) { ... on Asset { assetMaterializations(limit: 500) { partition'
            " metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }"
        )["assetOrError"]["assetMaterializations"]
        found: dict[str, int] = {}
        for node in reversed(nodes):
            if node["partition"] is None:
                continue  # the table as a whole
            [rows] = [e["intValue"] for e in node["metadataEntries"] if e["label"] == "dagster/partition_row_count"]
            found[node["partition"]] = rows
        return found


def until(what: Callable[[], Any], seconds: float = LONGEST_WAIT) -> Any:
    """What is asked for, once there is any; fails where there never is."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        # Each question of the UI's costs its server as much as a tenth of this.
        time.sleep(0.5)
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: the folder that B44_SCREENSHOTS names, else one of the test's own."""
    folder = Path(os.environ.get("B44_SCREENSHOTS") or tmp_path / "screenshots").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def take(page: Page, folder: Path, name: str) -> None:
    """Makes a picture of a page; in the folder of the documentation only where there is one of that name."""
    path = folder / f"{name}.png"
    if folder != DOCUMENTED or path.exists():
        page.screenshot(path=str(path))


@pytest.fixture
def ui(migrated: Place, tmp_path: Path) -> Generator[Ui]:
    name = migrated.url.partition("@/")[2].partition("?")[0]
    storage = f"{name}_dagster"
    with psycopg.connect(migrated.url, autocommit=True) as conn:
        conn.execute(f'create database "{storage}" template template0'.encode())
    port = free_port()

    def with_password(url: str) -> str:
        return url.replace("//postgres@", f"//postgres:{PASSWORD}@", 1)

    key = Key.generate().secret
    environ = {
        **os.environ,
        "B44_DATABASE_URL": with_password(migrated.url),
        "B44_BACKUP_KEY": key,
        "B44_ALERT_WEBHOOK": f"http://127.0.0.1:9/{WEBHOOK}",
        "B44_EXPORT_DIR": str(migrated.export),
        "B44_FIRST_MONTH": "2025-10",
        "B44_HOME": str(tmp_path / "home"),
        "DAGSTER_PG_URL": with_password(migrated.url.replace(f"@/{name}?", f"@/{storage}?")),
    }
    log = (tmp_path / "dev.log").open("w")
    process = subprocess.Popen(
        [Path(sys.executable).with_name("b44"), "dev", "--port", str(port)],
        env=environ,
        cwd=tmp_path,
        stdout=log,
        stderr=log,
    )
    found = Ui(f"http://127.0.0.1:{port}", migrated)

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "dev.log").read_text()[-2000:]
        try:
            return bool(found.ask("{ version }"))
        except (urllib.error.URLError, ConnectionError):
            return False

    lines = CommandLines()
    try:
        with lines.watched():
            until(answers)
            yield found
        at = f"@/{storage}?"
        places = [*of_folder(tmp_path), *of_database(migrated.url.replace(f"@/{name}?", at))]
        places.append(("command lines", "\n".join(lines.seen).encode()))
        assert "public.event_logs" in dict(places) and b"dagster" in places[-1][1]
        secrets = [secret.encode() for secret in (PASSWORD, unquote(PASSWORD), WEBHOOK, key)]
        assert {place for place, text in places for secret in secrets if secret in text} == set()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            # Dagster gives its services a minute each.
            process.wait(timeout=LONGEST_WAIT)
        finally:
            process.kill()
            process.wait()
            log.close()
            with psycopg.connect(migrated.url, autocommit=True) as conn:
                conn.execute(f'drop database if exists "{storage}" with (force)'.encode())


@pytest.fixture
def page(pictures: Path) -> Generator[Page]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, headless=True, args=QUIET)
        opened = browser.new_page(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
        opened.set_default_timeout(60_000)
        try:
            yield opened
        finally:
            take(opened, pictures, "last")
        browser.close()


def launch(page: Page, ui: Ui, months: str) -> dict[str, Any]:
    """Has posts of some months materialized from the asset's page; returns the run once it is there."""
    before = {run["runId"] for run in ui.runs()}
    page.goto(f"{ui.address}/assets/posts")
    page.get_by_role("button", name="Materialize…").click()
    # What is upstream of posts was made without Dagster here, so it asks.
    page.get_by_role("button", name="Confirm").click()
    dialog = page.get_by_role("dialog")
    chosen = dialog.locator("input[type=text]").first
    chosen.fill(months)
    chosen.press("Tab")
    dialog.get_by_role("button", name="Launch").click()
    [run] = until(lambda: [r for r in ui.runs() if r["runId"] not in before])
    return run


def status_of(ui: Ui, run: dict[str, Any]) -> str:
    return next(r["status"] for r in ui.runs() if r["runId"] == run["runId"])


def turn_on(page: Page, ui: Ui, kind: str, name: str) -> None:
    page.goto(f"{ui.address}/locations/b44_assets/{kind}/{name}")
    switch = page.locator("input[type=checkbox]").first
    switch.wait_for(state="attached")
    switch.dispatch_event("click")
    until(lambda: switch.is_checked())


def test_an_operator_finds_the_graph_months_backfills_checks_schedules_and_sensors(
    ui: Ui, page: Page, pictures: Path
) -> None:
    # Posts that are inserted from now on have to wait; those of the first run are all there.
    ui.place.execute(
        """
        create function wait() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock(4712); return new; end $$
        """
    )
    ui.place.execute("create trigger wait before insert on posts for each row execute function wait()")
    with psycopg.connect(ui.place.url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(4712)")

        # A backfill over a range, in one run. While it goes on, a file changes, and sensors are told to see to it.
        backfill = launch(page, ui, "[2025-12...2026-05]")
        write(ui.place.export / "Post.jsonl", [*posts(), post(90, "2026-06")])
        turn_on(page, ui, "sensors", "changed_exports")
        turn_on(page, ui, "sensors", "pending_work")
        turn_on(page, ui, "schedules", "monitoring_schedule")
        page.goto(NOWHERE)
        until(lambda: status_of(ui, backfill) in ("SUCCESS", "FAILURE", "CANCELED"))
        assert status_of(ui, backfill) == "SUCCESS"

        look_around(ui, page, pictures, backfill)
        page.goto(NOWHERE)

        def asked_for(asset: str) -> list[dict[str, Any]]:
            return [
                r
                for r in ui.runs()
                if r["runId"] != backfill["runId"] and {"path": asset.split("/")} in (r["assetSelection"] or [])
            ]

        [staged] = until(lambda: asked_for("base44/posts"))
        until(lambda: status_of(ui, staged) == "SUCCESS")
        page.goto(f"{ui.address}/locations/b44_assets/sensors/changed_exports")
        page.get_by_role("button", name="Runs", exact=True).click()
        page.get_by_text(staged["runId"][:8]).first.wait_for()
        take(page, pictures, "sensor")

        page.goto(NOWHERE)

        # The run of the touched month hangs in the server; it is terminated, and the server is idle.
        [loading] = until(lambda: asked_for("posts"))
        assert {"key": "dagster/asset_partition_range_start", "value": "2026-06"} in loading["tags"]
        until(lambda: ui.place.execute(BUSY) == [(1,)])
        page.goto(f"{ui.address}/runs/{loading['runId']}")
        page.get_by_role("button", name="Terminate").click()
        page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
        until(lambda: status_of(ui, loading) == "CANCELED")
        until(lambda: ui.place.execute(BUSY) == [(0,)])
        take(page, pictures, "terminated")
    assert "2026-06" not in ui.place.months()
    assert "2026-06" not in ui.months()


def look_around(ui: Ui, page: Page, pictures: Path, backfill: dict[str, Any]) -> None:
    """Looks at the pages that tell of the graph, and of what a backfill of posts has done."""
    # The graph, group by group.
    page.goto(f"{ui.address}/asset-groups")
    for group in ("exports", "tables", "indexes", "monitoring"):
        page.get_by_text(group, exact=True).first.wait_for()
    until(lambda: page.get_by_text("fetching statuses").count() == 0)
    take(page, pictures, "graph")

    # The months of the backfill have their own numbers, and come from one run.
    assert ui.months() == {"2025-12": 0, "2026-04": 0} | ui.place.months()
    assert {"key": "dagster/asset_partition_range_start", "value": "2025-12"} in backfill["tags"]
    page.goto(f"{ui.address}/assets/posts?view=partitions&partition=2026-01")
    page.get_by_text("dagster/partition_row_count").first.wait_for()
    page.get_by_text("Materialized", exact=True).first.wait_for()
    page.get_by_text("2026-05").first.wait_for()
    take(page, pictures, "month")

    # What is true of the table as a whole stands first on its page, and names no month; its columns say where they come from.
    page.goto(f"{ui.address}/assets/posts?view=overview")
    page.get_by_text("rows_by_month").first.wait_for()
    page.get_by_text("(from the exported title)").first.wait_for()
    assert page.get_by_text("inserted_now", exact=True).count() == 1
    assert page.get_by_text("dagster/partition_row_count").count() == 0
    take(page, pictures, "table")

    # The lineage of a table: its export, what it refers to, what stands on it; nothing of the program's own.
    page.goto(f"{ui.address}/assets/users?view=lineage&lineageScope=neighbors")
    page.get_by_text("users_constraints").first.wait_for()
    take(page, pictures, "lineage")

    # Its checks.
    page.goto(f"{ui.address}/assets/posts?view=checks")
    page.get_by_text("row_parity").first.wait_for()
    page.get_by_text("content_parity").first.wait_for()
    take(page, pictures, "checks")


BUSY = (
    "select count(*) from pg_stat_activity where datname = current_database() and state = 'active'"
    " and application_name like 'b44 load%'"
)
