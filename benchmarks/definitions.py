"""How long Dagster's definitions of an app take to load, by the number of its tables.

    python benchmarks/definitions.py --tables 60

Each size is loaded in a process of its own, the best of some tries: processor seconds, since nothing is waited for. The share
of the catalogue is what reading and checking the files takes; the rest is Dagster's making of assets and checks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.orchestration.code_location import build_definitions
from tests.helpers.ledger_app import write_app

TRIES = 5


def measure(folder: Path) -> tuple[float, float]:
    """Processor seconds of the definitions, and of the catalogue alone; the best of some tries each."""
    settings = Settings.load(environ={"B44_SQL_DIR": str(folder)}, directory=folder.parent)

    def best(work: Callable[[], object]) -> float:
        found: list[float] = []
        for _ in range(TRIES):
            begun = time.process_time()
            work()
            found.append(time.process_time() - begun)
        return min(found)

    return best(lambda: build_definitions(settings)), best(lambda: load_catalog(settings.sql_dir))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tables", type=int, default=60, help="the largest app; a quarter and a half of it are measured, too"
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        print(*measure(arguments.folder))
        return
    shown = Table(
        *(Column(name, justify="right") for name in ("tables", "seconds", "ms a table", "of it the catalogue"))
    )
    with tempfile.TemporaryDirectory() as scratch:
        for tables in (arguments.tables // 4, arguments.tables // 2, arguments.tables):
            folder = Path(scratch) / str(tables) / "sql"
            write_app(folder, tables)
            said = subprocess.run(
                [sys.executable, __file__, "--folder", str(folder)], check=True, capture_output=True, text=True
            ).stdout
            whole, catalogue = map(float, said.split())
            shown.add_row(str(tables), f"{whole:.2f}", f"{whole / tables * 1000:.0f}", f"{catalogue / whole:.0%}")
    Console().print(shown)


if __name__ == "__main__":
    main()
