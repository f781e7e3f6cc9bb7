"""The end of a migration: whether its tables may go, how they go, and what is known of it afterwards.

What belongs here: schema `b44`'s record of the migration, and dropping the schemas `migration` and `base44`. What does not:
keeping what they hold; see `backup`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg import sql

from b44_assets.errors import NotFinishedError
from b44_assets.failpoints import failpoint
from b44_assets.migration.accounts import accounts
from b44_assets.migration.sources import no_seed
from b44_assets.schema.online_ddl import change
from b44_assets.schema.runtime import install_state
from b44_assets.session import Connection, Session, scalar
from b44_assets.wording import first_of, plural

SCHEMAS = ("migration", "base44")
"""The schemas that are of no use once a migration is over."""

DEPENDENTS = """
with inside (classid, objid) as (
  select 'pg_namespace'::regclass, n.oid from pg_namespace n where n.nspname = any(%(schemas)s)
  union all
  select 'pg_class'::regclass, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where n.nspname = any(%(schemas)s)
  union all
  select 'pg_proc'::regclass, p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace
   where n.nspname = any(%(schemas)s)
  union all
  select 'pg_type'::regclass, t.oid from pg_type t join pg_namespace n on n.oid = t.typnamespace
   where n.nspname = any(%(schemas)s)
),
-- What belongs to a relation goes where that goes.
dependents as (
  select distinct
         case when k.relation is null then d.classid else 'pg_class'::regclass end as classid,
         coalesce(k.relation, d.objid) as objid
    from pg_depend d
    join inside i on i.classid = d.refclassid and i.objid = d.refobjid
    cross join lateral (
      select case d.classid
        when 'pg_rewrite'::regclass then (select r.ev_class from pg_rewrite r where r.oid = d.objid)
        when 'pg_attrdef'::regclass then (select a.adrelid from pg_attrdef a where a.oid = d.objid)
        when 'pg_trigger'::regclass then (select t.tgrelid from pg_trigger t where t.oid = d.objid)
        when 'pg_policy'::regclass then (select p.polrelid from pg_policy p where p.oid = d.objid)
        when 'pg_constraint'::regclass then
          (select nullif(k.conrelid, 0) from pg_constraint k where k.oid = d.objid)
        when 'pg_publication_rel'::regclass then (select r.prrelid from pg_publication_rel r where r.oid = d.objid)
      end
    ) k (relation)
)
select pg_describe_object(d.classid, d.objid, 0)
  from dependents d
 where (d.classid, d.objid) not in (select classid, objid from inside)
   and d.classid <> 'pg_default_acl'::regclass
   and not exists (
     select from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where d.classid = 'pg_class'::regclass and c.oid = d.objid and n.nspname = 'pg_toast')
 order by 1
"""
"""Objects that would go along if the schemas `%(schemas)s` were dropped, in words."""


@dataclass(frozen=True)
class MigrationState:
    """What the database says of its migration.

    Attributes:
        present: Whether the migration tables are there.
        archive: The backup that holds them; None where there is none.
        archived_at: The moment that the archive shows.
        finished_at: When they were dropped by `finish`; None where that was not done.
        dropped: Whether they were dropped by hand: migrated rows are there, and no migration tables.
    """

    present: bool
    archive: str | None = None
    archived_at: datetime | None = None
    finished_at: datetime | None = None
    dropped: bool = False

    @property
    def over(self) -> bool:
        """Whether the database was migrated and can be migrated into no more."""
        return self.finished_at is not None or self.dropped

    def message(self) -> str:
        """One line on how the migration came to its end."""
        if self.finished_at is not None:
            return f"the migration was finished on {_day(self.finished_at)}; {self.whereabouts()}"
        return f"the migration is over: {self.whereabouts()}"

    def whereabouts(self) -> str:
        """Where the migration tables are now, in a few words."""
        if self.archive is None or self.archived_at is None or self.finished_at is None:
            return "the migration tables were dropped by hand"
        return f"migration tables archived on {_day(self.archived_at)} as {self.archive}"


def migration_state(session: Session) -> MigrationState:
    """Reads what the database says of its migration.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    with session.connection("look at the migration") as conn:
        return _state(session, conn)


def holds_records(session: Session) -> bool:
    """Whether records were migrated into the target: what is there is worth a backup before it is changed.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    with session.connection("look at the migration") as conn:
        if scalar(conn, "select to_regclass('migration.migration_log')") is not None:
            return (
                scalar(conn, "select exists (select from migration.migration_log where status = 'completed')") is True
            )
        return _state(session, conn).over


def _state(session: Session, conn: Connection) -> MigrationState:
    present, known = conn.execute(
        "select to_regclass('migration.exports') is not null, exists (select from pg_attribute"
        " where attrelid = to_regclass('b44.migration_state') and attname = 'finished_at')"
    ).fetchone() or (False, False)
    if known:
        row = conn.execute("select archive, archived_at, finished_at from b44.migration_state").fetchone()
        if row is not None and row[2] is not None:
            return MigrationState(present, *row)
        known = row is not None
    if present:
        return MigrationState(present)
    return MigrationState(present, dropped=_migrated_rows(session, conn, any_id=known))


def _migrated_rows(session: Session, conn: Connection, *, any_id: bool) -> bool:
    """Tells whether a table holds rows of a migration: such with ids of Base44, or any where there was one for certain."""
    for table, mapping in session.catalog.mappings.items():
        # A table of another app may have the name, and no such column.
        if not scalar(
            conn,
            "select exists (select from pg_attribute where attrelid = to_regclass(%s) and attname = %s and not attisdropped)",
            (f"public.{table}", mapping.key),
        ):
            continue
        query = sql.SQL("select exists (select from public.{table} t where t.{key}::text like {form} and {counted})")
        form = "%" if any_id else "%000b44"
        if scalar(
            conn,
            query.format(
                table=sql.Identifier(table),
                key=sql.Identifier(mapping.key),
                form=sql.Literal(form),
                counted=no_seed(session.catalog.table(table), "t"),
            ),
        ):
            return True
    return False


@dataclass(frozen=True)
class CheckResult:
    """What a check has found: `passed`, `warning` or `failed`, and why in one line."""

    asset: str
    name: str
    outcome: str
    said: str


def note_checks(session: Session, results: Iterable[CheckResult]) -> None:
    """Notes what checks have found, for whoever wants to finish the migration; nothing where this role may not.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    noted = list(results)
    with session.connection("note checks") as conn:
        there, writable, can_create = conn.execute(
            """
            select to_regclass('b44.check_results') is not null,
                   coalesce(has_schema_privilege(to_regnamespace('b44'), 'usage')
                     and (select bool_and(has_table_privilege(to_regclass('b44.check_results'), wanted))
                            from unnest(array['select', 'insert', 'update']) wanted), false),
                   has_database_privilege(current_database(), 'create')
            """
        ).fetchone() or (False, False, False)
        if not noted or not (writable if there else can_create):
            return
        if not there:
            install_state(conn, session)
        conn.execute(
            """
            insert into b44.check_results as r (asset, check_name, outcome, said)
            select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[])
            on conflict (asset, check_name) do update
               set outcome = excluded.outcome, said = excluded.said, checked_at = excluded.checked_at
             -- Checks that find the same write nothing.
             where (r.outcome, r.said) is distinct from (excluded.outcome, excluded.said)
            """,
            (
                [one.asset for one in noted],
                [one.name for one in noted],
                [one.outcome for one in noted],
                [one.said for one in noted],
            ),
        )


def require_finishable(
    session: Session, *, accept_quarantine: bool = False, accept_failed_checks: bool = False
) -> None:
    """Makes sure that nothing is left to do for which the migration tables are needed.

    Args:
        session: The run.
        accept_quarantine: Whether records in quarantine are given up; they stay in the archive.
        accept_failed_checks: Whether the last verification need not have passed.

    Raises:
        NotFinishedError: Something is left; says what, and what to do.
        DatabaseError: The target cannot be reached.
    """
    found = accounts(session)
    if waiting := {one.entity: one.pending + one.unaccounted for one in found if one.pending or one.unaccounted}:
        raise NotFinishedError(f"{_counted(waiting)} wait for their batch: run b44 migrate first")
    with session.connection("look at the migration") as conn:
        if unplanned := [
            row[0]
            for row in conn.execute(
                "select e.entity from migration.exports e left join migration.plans s on s.entity = e.entity"
                " where s.entity is null or s.planned_at < e.staged_at order by 1"
            ).fetchall()
        ]:
            raise NotFinishedError(
                f"an export of {', '.join(unplanned)} is staged and not migrated: run b44 migrate first"
            )
        results = (
            conn.execute("select asset, check_name, outcome, said from b44.check_results order by 1, 2").fetchall()
            if scalar(conn, "select to_regclass('b44.check_results') is not null")
            else []
        )
        outside = [row[0] for row in conn.execute(DEPENDENTS.encode(), {"schemas": list(SCHEMAS)}).fetchall()]
    quarantined = {one.entity: one.quarantined for one in found if one.quarantined}
    if quarantined and not accept_quarantine:
        raise NotFinishedError(
            f"{_counted(quarantined)} are in quarantine: correct them and run b44 replay, or give them up with"
            " --accept-quarantine; the archive keeps them"
        )
    if outside:
        raise NotFinishedError(
            f"{', '.join(outside[:3])} {plural(len(outside), 'depends', 'depend')} on the migration tables and would"
            " be dropped with them: drop or change that first"
        )
    if accept_failed_checks:
        return
    known = [CheckResult(*row) for row in results if row[0] in _assets(session)]
    failed = [one for one in known if one.outcome == "failed"]
    if failed:
        raise NotFinishedError(
            "the last verification failed: "
            f"{first_of([f'{one.asset} {one.name}: {one.said}' for one in failed])}; run b44 verify"
            " again, or say --accept-failed-checks"
        )
    compared = {one.asset for one in known if one.name == "content_parity"}
    if missing := [one.entity for one in found if one.entity not in compared]:
        raise NotFinishedError(f"{', '.join(missing)} were never verified: run b44 verify first")


def drop_migration_tables(
    session: Session, archive: str, archived_at: datetime, differences: Callable[[Connection], list[str]]
) -> None:
    """Drops the schemas `migration` and `base44`, and notes where they are kept, in one transaction.

    Args:
        session: The run.
        archive: The backup that holds them.
        archived_at: The moment that it shows.
        differences: Compares what is there now, and can change no more, with the archive; a line for each difference.

    Raises:
        NotFinishedError: The archive does not hold what is there now.
        DatabaseError: The target cannot be reached, or no lock was to be had.
    """

    def drop(conn: Connection) -> None:
        install_state(conn, session)
        relations = conn.execute(
            "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = any(%s) and c.relkind in ('r', 'p') order by 1, 2",
            (list(SCHEMAS),),
        ).fetchall()
        if relations:
            conn.execute(
                sql.SQL("lock table {} in access exclusive mode").format(
                    sql.SQL(", ").join(sql.Identifier(*name) for name in relations)
                )
            )
        if found := differences(conn):
            raise NotFinishedError(
                f"the migration tables have changed since they were archived ({found[0]}): run it again"
            )
        outside = conn.execute(DEPENDENTS.encode(), {"schemas": list(SCHEMAS)}).fetchall()
        if outside:
            raise NotFinishedError(f"{outside[0][0]} depends on the migration tables: drop or change that first")
        conn.execute("set local client_min_messages = warning")
        for schema in SCHEMAS:
            conn.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))
        conn.execute(
            "update b44.migration_state set archive = %s, archived_at = %s, finished_at = now()", (archive, archived_at)
        )
        failpoint("finish: before commit", conn)

    with session.connection("finish") as conn:
        change(session, conn, drop)
        failpoint("finish: after commit", conn)


def _assets(session: Session) -> set[str]:
    return {spec.name for spec in session.catalog.specs} | {"monitoring/index_usage"}


def _counted(records: dict[str, int]) -> str:
    total = sum(records.values())
    by_table = ", ".join(f"{table} {count:,}" for table, count in records.items())
    return f"{total:,} {plural(total, 'record')} ({by_table})"


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"
