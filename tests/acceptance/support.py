"""The command `b44` in a process of its own, and what it leaves in a database."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.helpers.forking import run_forked

COMMAND = Path(sys.executable).with_name("b44")
REPOSITORY = Path(__file__).resolve().parents[2]
EXPORTS = REPOSITORY / "tests" / "exports"
DIALECTS = sorted(folder.name for folder in EXPORTS.iterdir())

# Longer than any of it takes on a slow machine: only a process that hangs is ended by it.
PATIENCE = 300.0

_KEPT = re.compile(
    r"warning: posts publish_permissions: [\d,]+ violations? \(.*\): The author of a published post is active and verified\..*"
)
_PROGRESS = re.compile(r"[\w/]+(?:: mapping|: [\d,]+ of [\d,]+)?")


@dataclass(frozen=True)
class Result:
    """What a process came to."""

    status: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """The lines of standard error but for progress, further tries, and posts that every sample has kept though forbidden."""
        return [
            line
            for line in self.err.splitlines()
            if not (line.startswith("notice: ") or _PROGRESS.fullmatch(line) or _KEPT.fullmatch(line))
        ]

    @property
    def fault(self) -> str:
        """The one line that says why the command failed."""
        assert self.status != 0, self.out
        assert len(self.complaints) == 1, self.err
        assert self.complaints[0].startswith("b44: "), self.err
        assert "Traceback" not in self.out + self.err
        return self.complaints[0]

    @property
    def report(self) -> dict[str, Any]:
        """The JSON object on standard output, with nothing before and nothing after it."""
        assert self.out.startswith("{") and self.out.endswith("}\n"), (self.out, self.err)
        return json.loads(self.out)


@dataclass(frozen=True)
class Command:
    """`b44` with a working directory and an environment of its own.

    Attributes:
        directory: The working directory; `B44_HOME` is `home` in it.
        environment: All that the process finds in its environment.
    """

    directory: Path
    environment: dict[str, str] = field(repr=False)

    def on(self, url: str) -> Command:
        """The same command on another target."""
        return self.having(B44_DATABASE_URL=url)

    def having(self, **environment: str) -> Command:
        """The same command with more in its environment."""
        return replace(self, environment={**self.environment, **environment})

    def lacking(self, *names: str) -> Command:
        """The same command with less in its environment."""
        return replace(self, environment={k: v for k, v in self.environment.items() if k not in names})

    def __call__(self, *arguments: str | Path) -> Result:
        """Runs it to its end; the script itself runs wherever a test needs the process (`start`)."""
        with tempfile.TemporaryDirectory() as folder:
            return Result(
                *run_forked(
                    [str(word) for word in arguments], self.directory, self.environment, Path(folder), patience=PATIENCE
                )
            )

    def start(self, *arguments: str | Path) -> Running:
        """Starts it as the leader of a process group, as a shell does."""
        process = subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return Running(process)


@dataclass(frozen=True)
class Running:
    """A process that has been started."""

    process: subprocess.Popen[str]

    def wait(self) -> Result:
        """Waits for its end."""
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except BaseException:
            self.signal(signal.SIGKILL)
            self.process.communicate()
            raise
        return Result(self.process.returncode, out, err)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process group, as the terminal does on Ctrl-C."""
        os.killpg(self.process.pid, number)

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something holds; fails if the process ends first."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"ended too early: {self.wait()}")
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)


def environment(**values: str) -> dict[str, str]:
    """An environment without settings of whoever runs the tests."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
    # No export has an earlier post, and every partition takes its time.
    return {name: os.environ[name] for name in kept if name in os.environ} | {"B44_FIRST_MONTH": "2024-01"} | values


def table_of(entity: str) -> str:
    """The target table of one of the guide's entities."""
    return {
        "User": "users",
        "Category": "categories",
        "Post": "posts",
        "Event": "events",
        "UserPreference": "user_preferences",
        "UserSession": "user_sessions",
        "AuditLog": "audit_logs",
    }[entity]


def rows(url: str, query: str | sql.SQL | sql.Composed, *parameters: object) -> list[tuple[Any, ...]]:
    """What a query returns."""
    with psycopg.connect(url) as conn:
        text = query if not isinstance(query, str) else query.encode()
        return conn.execute(text, parameters or None).fetchall()


def value(url: str, query: str | sql.SQL | sql.Composed, *parameters: object) -> Any:
    """The first column of the only row."""
    (row,) = rows(url, query, *parameters)
    return row[0]


# What may differ between two runs that came to the same.
_OF_THE_RUN = frozenset(
    {"run_id", "batch_number", "generation", "staged_at", "planned_at", "quarantined_at", "fingerprint"}
)
# Working tables, and those that `migration.accounting` sums up or that name batches: an interrupted run has other ones.
_LEFT_OUT = re.compile(r"migration\.(?:\w+_plan|migration_log|plans|verifications)")


def state(url: str) -> dict[str, tuple[int, str]]:
    """What the migration has come to: for each relation the number of rows and a digest of all their values."""
    found: dict[str, tuple[int, str]] = {}
    with psycopg.connect(url) as conn:
        conn.execute("set timezone = 'UTC'")
        relations = conn.execute(
            """
            select n.nspname, c.relname, array_agg(a.attname order by a.attnum)
              from pg_class c
              join pg_namespace n on n.oid = c.relnamespace
              join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where n.nspname in ('public', 'base44', 'migration')
               and (c.relkind in ('r', 'p', 'm') or (c.relkind = 'v' and c.relname = 'accounting'))
             group by c.oid, n.nspname, c.relname
            """
        ).fetchall()
        for schema, name, columns in relations:
            if _LEFT_OUT.fullmatch(f"{schema}.{name}"):
                continue
            own = {"id"} if (schema, name) == ("migration", "quarantine") else set[str]()
            left_out = own | _OF_THE_RUN if schema == "migration" else own
            listed = sql.SQL(", ").join(sql.Identifier(column) for column in columns if column not in left_out)
            row = conn.execute(
                sql.SQL(
                    "select count(*), coalesce(md5(string_agg(digest, '' order by digest)), '')"
                    " from (select md5(row({})::text) as digest from {}) as digests"
                ).format(listed, sql.Identifier(schema, name))
            ).fetchone()
            assert row is not None
            found[f"{schema}.{name}"] = (row[0], row[1])
    return found


def versions_of_rows(url: str) -> set[tuple[Any, ...]]:
    """Where every stored row stands and which transaction wrote it: the same set means that nothing was written."""
    with psycopg.connect(url) as conn:
        tables = conn.execute(
            "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname in ('public', 'base44', 'migration') and c.relkind = 'r'"
        ).fetchall()
        found: set[tuple[Any, ...]] = set()
        for schema, name in tables:
            query = sql.SQL("select tableoid::bigint, ctid::text, xmin::text from {}")
            found.update(conn.execute(query.format(sql.Identifier(schema, name))).fetchall())
    return found


def waiting(url: str, purpose: str = "") -> int:
    """How many sessions of ours wait for a lock in the target."""
    return value(
        url,
        "select count(*) from pg_stat_activity where datname = current_database() and application_name like %s"
        " and wait_event_type = 'Lock'",
        f"b44 {purpose}%",
    )


@contextmanager
def stopped_at(running: Running, url: str, table: str, purpose: str, *, after: str = "select true") -> Generator[None]:
    """Holds a migration up, for certain, where it next writes to a table; lets it go at the end of the block.

    Args:
        running: The migration.
        url: Its target.
        table: What it cannot write to.
        purpose: Which of its sessions must be waiting.
        after: A query that must give true before; it may fail until then.
    """

    def reached() -> bool:
        try:
            return bool(value(url, after)) and value(url, "select to_regclass(%s) is not null", table)
        except psycopg.errors.UndefinedTable:
            return False

    running.until(reached)
    with psycopg.connect(url) as conn:
        schema, _, name = table.partition(".")
        conn.execute(sql.SQL("lock table {} in share mode").format(sql.Identifier(schema, name)))
        running.until(lambda: waiting(url, purpose) > 0)
        yield
