"""All that is measured, in one table of ratios.

    python -m benchmarks --rows ab
    python -m benchmarks --rows d --dlt PYTHON
    python -m benchmarks                # all of it, at full size: about an hour, and 10 GB

Each row compares two things of one run on one machine. What a program is needed for that is not there is left out, and said so.
Rows are chosen by their letters:
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

import psycopg
from rich.console import Console
from rich.table import Column, Table

from b44_assets.errors import B44Error
from benchmarks.measuring import load, workplace
from benchmarks.rows import ROWS, Row
from benchmarks.staging import add_programs

_WIDTH_OF_A_FILE = 120


def told() -> str:
    """The rows with what they are, a line each."""
    return "\n".join(f"    {letter}  {(work.__doc__ or '').strip()}" for letter, work in ROWS.items())


def report(found: dict[str, list[Row]]) -> None:
    """Prints the table."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    right = ("value", "ratio", "goal")
    table = Table("", "what", *(Column(name, justify="right", no_wrap=True) for name in right), "against")
    for letter, rows in found.items():
        for row in rows:
            goal = "" if row.goal is None else f"≤ {row.goal:g}{'' if row.of_ratio else ' ' + row.unit}"
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            value = f"{row.value:,.2f} {row.unit}".strip()
            table.add_row(letter, row.what, value, ratio, f"missed: {goal}" if row.missed else goal, row.against)
        table.add_section()
    console.print(load())
    console.print(table)


def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n{told()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", default="".join(ROWS), metavar="LETTERS", help="default: all of them")
    parser.add_argument("--tables", type=int, nargs="*", default=[10, 66, 179], help="a: sizes of generated apps")
    parser.add_argument("--records", type=int, default=10, help="a: records of each table")
    parser.add_argument(
        "--posts", type=int, nargs="*", default=[125_000, 250_000, 500_000, 1_000_000], help="c: numbers of posts"
    )
    parser.add_argument("--again", type=int, default=1, help="c: times that it runs once more with nothing to do")
    parser.add_argument("--one-size", type=int, default=125_000, help="d to i: posts; g takes 20,000 at most")
    add_programs(parser, "d: ")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.rows) - ROWS.keys():
        parser.error(f"--rows: there is no row {min(unknown)}")
    found: dict[str, list[Row]] = {}
    failed: list[str] = []
    for letter in options.rows:
        found[letter] = []
        # What was measured for hours is shown, whatever becomes of the rest.
        try:
            with workplace(None) as place:
                for row in ROWS[letter](options, place):
                    found[letter].append(row)
                    print(f"{letter}: {row.what}: {row.value:.2f} {row.unit}", file=sys.stderr)
        except (B44Error, ValueError, OSError, psycopg.Error) as error:
            failed.append(f"{letter}: {error}")
    if options.json:
        print(json.dumps({letter: [asdict(row) for row in rows] for letter, rows in found.items()}))
    else:
        report(found)
    if failed:
        raise SystemExit("benchmarks: " + "\n".join(failed))


if __name__ == "__main__":
    main()
