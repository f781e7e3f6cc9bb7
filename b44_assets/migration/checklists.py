"""Lines of the usual checklists for a database in production, and what stands for each: checks with their verdict, or a fact.

`docs/checklists.md` has the same lines; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What is known of a line, the worst first; NO_CHECK stands apart."""

    FAILED = "failed"
    WARNING = "warning"
    NOT_MEASURED = "not measured"
    PASSED = "passed"
    NO_CHECK = "not by a check"


_ANSWERS = (Verdict.FAILED, Verdict.WARNING, Verdict.PASSED)


@dataclass(frozen=True)
class Line:
    """A line of a checklist.

    Attributes:
        text: What is to be so.
        checks: Names of the checks that stand for it, all of which are asked.
        stands: What stands for it: where a check is not all, or there is none.
    """

    text: str
    checks: tuple[str, ...] = ()
    stands: str = ""


@dataclass(frozen=True)
class Evidence:
    """A line of a checklist with what is known of it.

    Attributes:
        list: The checklist.
        text: As of `Line`.
        verdict: The worst of its checks; `not measured` where one was never answered, `not by a check` where it has none.
        said: What failing checks say; else which have passed, and what else stands for it.
    """

    list: str
    text: str
    verdict: Verdict
    said: str


CHECKLISTS: Mapping[str, tuple[Line, ...]] = {
    "Schema": (
        Line("entities and their relations are known", stands="headers `entity` and `depends` of sql/mappings"),
        Line("columns have fitting types", ("content_parity", "schema_drift")),
        Line("primary and foreign keys", ("constraints_valid", "foreign_keys_hold")),
        Line("rules of values are constraints", ("constraints_valid",)),
        Line("rules of uniqueness hold", ("constraints_valid", "indexes_valid")),
        Line("tables and columns have comments", stands="a table's file without them does not pass the tests"),
        Line("indexes follow the queries", ("query_plans",)),
        Line("large tables are partitioned", ("partition_bounds", "default_partitions_empty")),
        Line("the application's developers have reviewed the schema", stands="sql/ is there to be read; people's work"),
        Line("decisions are written down", stands="docs/decisions.md; the first comment of each file"),
    ),
    "Indexes": (
        Line("the application's queries are known", stands="files of sql/queries/"),
        Line("there are indexes of single columns that are compared", ("indexes_valid", "query_plans")),
        Line("there are indexes of several columns", ("indexes_valid", "query_plans")),
        Line("there are indexes of a part of the rows", ("indexes_valid", "query_plans")),
        Line("there are indexes that spare a look at the table", ("indexes_valid", "query_plans")),
        Line("the kind of index suits what is asked", ("query_plans",)),
        Line("use of indexes is watched", ("indexes_worth_having",)),
        Line("indexes that nobody uses, or that repeat another, are named", ("indexes_worth_having",)),
        Line("missing indexes are named", ("indexes_suggested",)),
        Line("indexes are kept in shape", ("indexes_valid",), "job maintenance, each week"),
        Line("their design is written down", stands="the first comment of each file of sql/indexes/"),
    ),
    "Data migration": (
        Line(
            "the data of Base44 is kept", stands="the export is never changed; its digest stands in migration.exports"
        ),
        Line("values are transformed by rules", ("content_parity",)),
        Line("it can be done in steps, and goes on where it stopped", ("export_applied",)),
        Line("it is tried before", stands="b44 sample; another target"),
        Line("every record is accounted for", ("row_parity",)),
        Line("every value is what the rules make of the exported one", ("content_parity",)),
        Line(
            "errors are handled and tried again",
            ("quarantine_empty",),
            "migration.quarantine names each refused record",
        ),
        Line("progress is shown", stands="b44 status; migration.migration_log"),
        Line("it can be undone", stands="b44 rollback by run or month"),
        Line(
            "procedure and results are written down",
            stands="docs/leaving-base44.md; the pages of b44 report and b44 cutover",
        ),
    ),
    "Performance": (
        Line("slow queries are known", ("statements_fast",)),
        Line(
            "plans of the application's queries are looked at", ("query_plans", "blocks_as_before", "rows_as_estimated")
        ),
        Line("tables are made for how they are used", ("partition_bounds", "foreign_keys_hold"), "sql/tables"),
        Line("the indexes serve the queries", ("query_plans", "indexes_worth_having")),
        Line("queries that read too much are named", ("blocks_as_before", "indexes_suggested")),
        Line("extensions are used where they are", stands="monitoring/slow_statements, monitoring/table_bloat"),
        Line("results that cost much are kept", ("view_fresh", "view_equals_query"), "materialized views"),
        Line("what is read stays in memory", ("mostly_cached",)),
        Line("settings of the server fit the database", ("settings_fit",), "monitoring/settings_advice"),
        Line("statistics are up to date", ("analyzed",)),
        Line("connections are pooled where there are many", ("connections_left",)),
        Line("growth is foreseen", ("grows_as_expected", "not_full_soon")),
        Line(
            "vacuum keeps up",
            ("vacuumed", "settings_fit"),
            "storage parameters by size of table: monitoring/settings_advice",
        ),
        Line(
            "the machine is large enough",
            ("processors_left", "memory_left", "disk_free"),
            "monitoring/machine, monitoring/disk",
        ),
        Line("much reading can go to a standby", ("standbys_follow",), "B44_READ_URL"),
    ),
    "Backup and recovery": (
        Line("backups are taken by a schedule", ("backup_new_enough",)),
        Line("there are several kinds of them", ("newest_is_good",)),
        Line("the WAL is archived without a gap", ("no_gap", "archiving_works")),
        Line("each is restored and compared", ("backups_verified", "newest_is_good")),
        Line("they are encrypted and safe to read", ("records_readable",), "B44_BACKUP_KEY"),
        Line("whoever is responsible is told", ("backup_new_enough",), "B44_ALERT_WEBHOOK, B44_ALERT_EMAIL"),
        Line("recovery is rehearsed", ("recovery_rehearsed",)),
        Line("old ones go, the last good ones stay", ("chains_whole",), "B44_KEEP_BACKUPS_DAYS"),
        Line("the procedures are written down", stands="docs/recovery.md, whose commands a test runs"),
        Line("people are trained", stands="people's work: b44 drill is the exercise"),
    ),
    "Monitoring": (
        Line(
            "connections",
            ("connections_left", "no_long_transaction", "no_idle_transaction", "sessions_encrypted"),
            "monitoring/connections",
        ),
        Line(
            "slow queries",
            ("statements_fast",),
            "monitoring/slow_statements, monitoring/cache, monitoring/io, monitoring/temp_files, monitoring/queries",
        ),
        Line("sizes and growth of tables", ("grows_as_expected",), "monitoring/table_sizes"),
        Line(
            "processors, memory, disk",
            ("processors_left", "memory_left", "disk_free"),
            "monitoring/machine, monitoring/disk",
        ),
        Line("lag of replication", ("standbys_follow", "slots_read"), "monitoring/replication"),
        Line(
            "success of backups and time to restore",
            ("backup_new_enough", "recovery_time"),
            "monitoring/backups, backup/logical, backup/base, backup/incremental, backup/wal, backup/drill",
        ),
        Line("waits for locks, deadlocks", ("no_long_wait", "no_long_lock", "no_deadlock"), "monitoring/locks"),
        Line("unusual rates of errors", ("few_rollbacks",), "monitoring/transactions"),
        Line(
            "use and bloat of indexes and tables",
            ("indexes_worth_having", "no_bloated_table"),
            "monitoring/index_usage, monitoring/table_bloat",
        ),
        Line(
            "rate of transactions and WAL",
            ("wal_rate", "checkpoints_in_time"),
            "monitoring/transactions, monitoring/wal, monitoring/checkpoints",
        ),
        Line(
            "vacuum, and age of transaction ids",
            ("vacuumed", "transaction_ids_young", "multixacts_young"),
            "monitoring/dead_rows, monitoring/wraparound",
        ),
    ),
    "Security": (
        Line("values are bound, names quoted, never put into SQL as text", stands="a rule of the linter"),
        Line("who may do what is a matter of roles", ("schema_drift",), "docs/security.md"),
        Line("no role has more rights than it needs", ("schema_drift",), "docs/security.md"),
        Line("one sees one's own rows of personal tables", ("schema_drift",), "docs/row-level-security.md"),
        Line("changes are noted, with who made them", ("schema_drift",), "docs/security.md"),
        Line("connections between machines are encrypted", ("sessions_encrypted",)),
        Line("PostgreSQL is up to date", ("newest_minor_release",)),
        Line("what becomes known to be unsafe is mended", ("newest_minor_release",), "B44_NEWEST_POSTGRES"),
        Line("encryption at rest", stands="the data directory is as encrypted as its disk"),
        Line("backups are encrypted", stands="B44_BACKUP_KEY"),
        Line("logins and passwords", stands="the server's: pg_hba.conf"),
    ),
    "Success": (
        Line("all data is there, unharmed", ("row_parity", "content_parity")),
        Line("queries are as fast as wanted", ("statements_fast", "blocks_as_before")),
        Line("backups succeed", ("backup_new_enough", "newest_is_good")),
        Line("recovery takes no longer than it may", ("recovery_time", "recovery_point")),
        Line("the application hardly stands still", stands="freeze of the cut-over, on its page"),
        Line("storage is used well", ("no_bloated_table", "indexes_worth_having")),
        Line(
            "it takes no longer than planned",
            stands="b44 migrate says its time; docs/performance.md has what to expect",
        ),
        Line("it is written down", stands="docs/index.md and the first comment of each file of sql/"),
        Line("what matters is measured", ("disk_free", "backup_new_enough", "connections_left")),
    ),
    "What to do": (
        Line(
            "there is a backup before the schema is changed",
            ("backup_new_enough",),
            "each run that changes it, and its psql on a terminal, names the newest good one first, or says that there is none",
        ),
        Line(
            "data moves in transactions", stands="each batch and what is noted of it are one; migration.migration_log"
        ),
        Line("a migration is tried on data like production's", stands="b44 plan; another target"),
        Line("a migration is watched", stands="b44 status; its bar, and the log of its run"),
        Line("changes of the schema and their reasons are written down", stands="docs/decisions.md; files of sql/"),
        Line("types are the fitting ones", ("content_parity", "schema_drift")),
        Line("indexes follow a plan", ("query_plans", "indexes_worth_having")),
        Line("tables are analyzed and vacuumed", ("analyzed", "vacuumed"), "job statistics"),
        Line("connections of an application are pooled", ("connections_left",)),
        Line("the server is measured", ("statements_fast", "mostly_cached"), "job monitoring"),
        Line("growth is planned for", ("grows_as_expected", "not_full_soon")),
    ),
    "What to avoid": (
        Line(
            "changing data without a backup",
            ("backup_new_enough", "newest_is_good"),
            "b44 migrate, b44 replay, b44 rollback, b44 cutover and b44 finish say which there is",
        ),
        Line("migrating in busy hours", stands="B44_THROTTLE gives way to the application"),
        Line("types that take anything", ("content_parity", "schema_drift")),
        Line("indexes that are of an earlier schema", ("indexes_valid", "schema_drift")),
        Line("figures that nobody looks at", stands="B44_ALERT_WEBHOOK, B44_ALERT_EMAIL"),
        Line("queries that ask for all columns", stands="files of sql/queries name their columns"),
        Line("connections that are left open", ("connections_left", "no_idle_transaction")),
        Line("rules of business in triggers", stands="triggers have what no constraint can say: sql/triggers"),
        Line("the database as a queue or a cache", stands="people's work"),
        Line("the same fact in several places", ("foreign_keys_hold", "view_equals_query")),
    ),
    "Common faults": (
        Line("missing indexes", ("indexes_suggested", "query_plans")),
        Line("locks that others wait for", ("no_long_wait", "no_long_lock", "no_long_transaction")),
        Line("connections that are never closed", ("connections_left", "no_idle_transaction")),
        Line("transactions that are too large", ("no_long_transaction",), "B44_BATCH_SIZE"),
        Line("queries that are asked too often, or badly", ("statements_fast",), "monitoring/slow_statements"),
        Line("too little is measured", ("disk_free", "connections_left"), "jobs monitoring and monitoring_daily"),
        Line("backups that fail in silence", ("nothing_failed_silently", "backup_new_enough")),
        Line("a schema that is not what its files say", ("schema_drift",)),
    ),
}


def evidence(answers: Iterable[tuple[str, str, str]]) -> tuple[Evidence, ...]:
    """What is known of each line.

    Args:
        answers: Name of a check, its outcome (`passed`, `warning`, `failed`, or another word where it could not be answered), and
            what it said; a check of several tables has several.
    """
    known: dict[str, list[tuple[str, str]]] = {}
    for name, outcome, said in answers:
        known.setdefault(name, []).append((outcome, said))
    return tuple(_judged(title, line, known) for title, lines in CHECKLISTS.items() for line in lines)


def _judged(title: str, line: Line, known: Mapping[str, list[tuple[str, str]]]) -> Evidence:
    if not line.checks:
        return Evidence(title, line.text, Verdict.NO_CHECK, line.stands)
    verdicts: list[Verdict] = []
    said: list[str] = []
    for name in line.checks:
        found = [_verdict(outcome) for outcome, _ in known.get(name, ())]
        worst = _worst(found)
        verdicts.append(worst)
        wrong = [
            text for outcome, text in known.get(name, ()) if _verdict(outcome) in (Verdict.FAILED, Verdict.WARNING)
        ]
        said.append(f"{name}: {wrong[0]}" if wrong else name if worst is Verdict.PASSED else f"{name}: {worst}")
    if line.stands:
        said.append(line.stands)
    return Evidence(title, line.text, _worst(verdicts), "; ".join(said))


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of some; NOT_MEASURED where there is none."""
    return min(verdicts, key=list(Verdict).index, default=Verdict.NOT_MEASURED)


def _verdict(outcome: str) -> Verdict:
    return Verdict(outcome) if outcome in _ANSWERS else Verdict.NOT_MEASURED
