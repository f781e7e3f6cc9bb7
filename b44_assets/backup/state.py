"""What a database holds, in numbers that can be compared: for each table a count and a checksum, for each object a digest.

Of a logical backup, a digest covers what any major version gives back alike: names, columns, types, the bodies of
functions, what a constraint or an index is on. The text of an expression is left out, for it may be written differently
once it was read in anew; owners and privileges stand apart (`access`). Of a physical backup a digest covers all of that:
there nothing may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow

from b44_assets.backup.access import LARGE_OBJECTS, access_differences, access_of
from b44_assets.backup.model import SourceState, TableState
from b44_assets.backup.schema_fingerprint import OBJECTS
from b44_assets.errors import BackupError
from b44_assets.postgres.deadline import Deadline
from b44_assets.wording import plural

# What a session may still set differently, beyond what `connect` sets. A holder of a snapshot may be idle for long.
_SETTINGS = {
    "search_path": "",
    "lc_monetary": "C",
    "row_security": "off",
    "xmlbinary": "base64",
    "idle_in_transaction_session_timeout": "0",
}
_PUBLIC_SCHEMA = "schema public"
# A table may be dropped between being listed and being locked.
_LISTINGS = 10
_PER_STATEMENT = 500
# What `capture` describes where it looks at some schemas only: the first words of its objects' identities.
_OF_TABLES = frozenset({"schema", "table", "sequence", "constraint", "index"})

_TABLES = sql.SQL("""\
select n.nspname, c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = any(%(kinds)s::"char"[]) and c.relpersistence = any(%(persistence)s::"char"[])
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and (%(schemas)s::text[] is null or n.nspname = any(%(schemas)s)) and n.nspname <> all(%(left_out)s)
  and (c.relkind <> 'm' or c.relispopulated)
  and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
order by 1, 2
""")

# The owner of a schema or of anything in it has not been locked out by somebody else: that table is to be read.
_UNREADABLE = """\
select n.nspname::text
from pg_namespace n
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'public')
  and not pg_has_role(n.nspowner, 'USAGE')
  and not exists (select from pg_class c where c.relnamespace = n.oid and pg_has_role(c.relowner, 'USAGE'))
  and (not has_schema_privilege(n.oid, 'USAGE') or exists (
    select from pg_class c
    where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'm', 'S') and not case c.relkind
        when 'S' then has_sequence_privilege(c.oid, 'SELECT') else has_table_privilege(c.oid, 'SELECT') end
      and not exists (
        select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')))
order by 1
"""

_REFRESHED = sql.SQL("""\
select n.nspname, c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'm' and c.relfilenode is distinct from pg_relation_filenode(c.oid)
""")

_SEQUENCES = sql.SQL("""\
select n.nspname, c.relname, s.seqstart, s.seqincrement
from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relpersistence = any(%(persistence)s::"char"[])
  and (%(schemas)s::text[] is null or n.nspname = any(%(schemas)s)) and n.nspname <> all(%(left_out)s)
  and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
order by 1, 2
""")

_LARGE_OBJECTS = sql.SQL("""\
select count(*), coalesce(sum(hashtextextended(oid || ' ' || md5(lo_get(oid)), 0)::numeric), 0)::text
from pg_largeobject_metadata
""")


@dataclass(frozen=True)
class Schemas:
    """Which schemas of a database are looked at.

    Attributes:
        only: These; None for all.
        left_out: But not these.
    """

    only: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, list[str] | None]:
        """As the queries here, and that of `schema_fingerprint`, take them."""
        return {"schemas": None if self.only is None else list(self.only), "left_out": list(self.left_out)}


ALL = Schemas()


def configure_session(conn: Connection[TupleRow]) -> None:
    """Makes a session as `snapshot` and `capture` need it, for as long as it lasts.

    Args:
        conn: From `database.connect`, in autocommit mode.
    """
    settings = _SETTINGS | ({"transaction_timeout": "0"} if conn.info.server_version >= 170000 else {})
    for name, value in settings.items():
        conn.execute("select set_config(%s, %s, false)", (name, value))


def unreadable_schemas(conn: Connection[TupleRow]) -> list[str]:
    """Returns the schemas that are somebody else's and not all of which this role may read, such as a host's own.

    Nothing in them belongs to this role, so they are no part of the app's database; a backup leaves them out.
    """
    return [name for (name,) in conn.execute(_UNREADABLE)]


@contextmanager
def snapshot(
    conn: Connection[TupleRow],
    *,
    without_writers: bool = False,
    deadline: Deadline | None = None,
    schemas: Schemas = ALL,
) -> Generator[None]:
    """Opens a transaction in which all tables are locked; its snapshot is taken by the first statement in it.

    Without the locks, a table that somebody drops, empties or rewrites afterwards would be empty in the snapshot, too.

    Args:
        conn: In autocommit mode, made so by `configure_session`.
        without_writers: The locks keep out writers, too; there is no transaction then that has written to a table and has
            not ended.
        deadline: When all locks have to be had; by default each is waited for as long as the session's lock timeout says.
        schemas: Whose tables; by default all.

    Raises:
        BackupError: A table cannot be read by this role.
        psycopg.errors.LockNotAvailable: A table is locked otherwise for longer than that.
    """
    mode = sql.SQL("share" if without_writers else "access share")
    for attempt in range(_LISTINGS):
        listed = _listed(conn, "rp", "pu", schemas)
        conn.execute("begin isolation level repeatable read")
        try:
            for names in _portions(listed):
                lock = sql.SQL("lock table {} in {} mode").format(
                    sql.SQL(", ").join(sql.SQL("only {}").format(sql.Identifier(*name)) for name in names), mode
                )
                if deadline is None:
                    conn.execute(lock)
                else:
                    deadline.run(conn, lock)
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            conn.execute("rollback")
            if attempt == _LISTINGS - 1:
                raise
            continue
        except errors.InsufficientPrivilege as error:
            conn.execute("rollback")
            raise _not_all(conn, error) from error
        except errors.Error:
            conn.execute("rollback")
            raise
        break
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute("rollback")


def capture(
    conn: Connection[TupleRow],
    *,
    lsn: str | None = None,
    sequences: Mapping[str, int] | None = None,
    version: int | None = None,
    schemas: Schemas = ALL,
) -> SourceState:
    """Reads what the database holds, in the snapshot of the open transaction.

    Args:
        conn: Made so by `configure_session`, in a REPEATABLE READ transaction.
        lsn: Where the snapshot stands in the WAL, for the state of a physical backup; None for that of a logical one.
            What a physical backup does not hold is left out: the rows of unlogged tables.
        sequences: As `sequences` gave them before the snapshot, for they do not obey it; by default they are read now.
        version: Of the source, as in `server_version_num`, if this is what was restored.
        schemas: Of these; where only some are named, their tables alone, with what is on them. By default all that the database holds.

    Raises:
        BackupError: A table cannot be read by this role.
    """
    physical = lsn is not None
    try:
        row = conn.execute("select now()").fetchone()
        assert row is not None
        digests = _objects(conn, physical, schemas)
        # A dump makes materialized views anew from what they select from, which may have gone on since.
        listed = _listed(conn, "rm" if physical else "r", "p" if physical else "pu", schemas)
        states = {".".join(name): _table(conn, name) for name in listed}
        count, checksum = (0, "0") if schemas.only else conn.execute(_LARGE_OBJECTS).fetchone() or (0, "0")
        if count:
            states[LARGE_OBJECTS] = TableState(count, checksum)
        if physical:
            # Refreshed meanwhile: such a view is not as it was in the snapshot, and has no lock that could keep it so.
            for name in conn.execute(_REFRESHED):
                states.pop(".".join(name), None)
        if sequences is None:
            sequences = read_sequences(conn, physical=physical, schemas=schemas)
        access = None if physical or schemas.only else access_of(conn, version, left_out=schemas.left_out)
    except errors.InsufficientPrivilege as error:
        raise _not_all(conn, error) from error
    return SourceState(row[0], lsn, digests, states, sequences, access)


def tables(conn: Connection[TupleRow]) -> list[tuple[str, str]]:
    """Returns schema and name of each table that has rows of its own, partitions each by itself.

    Args:
        conn: To the database.
    """
    return [(schema, name) for schema, name in _listed(conn, "r", "pu", ALL)]


def read_sequences(conn: Connection[TupleRow], *, physical: bool, schemas: Schemas = ALL) -> dict[str, int]:
    """Returns how many steps each sequence is past its start, by qualified name; -1 and below for one set back further.

    Args:
        conn: Made so by `configure_session`.
        physical: As in `capture`: whether unlogged ones are left out.
        schemas: Only those of these; by default all.
    """
    parameters = {"persistence": list("p" if physical else "pu"), **schemas.parameters}
    listed = conn.execute(_SEQUENCES, parameters).fetchall()
    found: dict[str, int] = {}
    for schema, name, start, increment in listed:
        try:
            query = sql.SQL("select last_value, is_called from {}").format(sql.Identifier(schema, name))
            last, called = conn.execute(query).fetchone() or (start, False)
        except errors.UndefinedTable:
            # Dropped since, which only a session outside a transaction can see.
            continue
        found[f"{schema}.{name}"] = (last - start) // increment + (1 if called else 0)
    return found


def not_set_back(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Returns those sequences of a first reading which a second one does not find behind it.

    What was between the two readings has to be at or after the first, unless somebody has set the sequence back.
    """
    return {name: steps for name, steps in before.items() if after.get(name, steps - 1) >= steps}


def differences(expected: SourceState, found: SourceState) -> list[str]:
    """Compares what was restored with what its source held.

    A sequence may be ahead: PostgreSQL logs it some steps in advance, and a dump reads it after the snapshot.

    Args:
        expected: Of the backup.
        found: Read by `capture` from what was restored, with the same `lsn` or none as well.

    Returns:
        Each difference in one line.
    """
    lines: list[str] = []
    for identity in sorted(expected.schema.keys() | found.schema.keys()):
        wanted, got = expected.schema.get(identity), found.schema.get(identity)
        if got is None:
            lines.append(f"{identity} is missing")
        elif wanted is None:
            lines.append(f"{identity} was not in the source")
        elif wanted != got:
            lines.append(f"{identity} is defined differently")
    for name, wanted in sorted(expected.tables.items()):
        got = found.tables.get(name)
        if got is None:
            if f"table {name}" in found.schema or name == LARGE_OBJECTS:
                lines.append(f"{name}: {wanted.rows} {plural(wanted.rows, 'row is', 'rows are')} missing")
        elif got.rows != wanted.rows:
            lines.append(f"{name}: {got.rows} {plural(got.rows, 'row')} rather than {wanted.rows}")
        elif got.checksum != wanted.checksum:
            lines.append(f"{name}: {got.rows} {plural(got.rows, 'row')} as in the source, but not the same")
    for name, wanted in sorted(expected.sequences.items()):
        got = found.sequences.get(name)
        if got is not None and got < wanted:
            lines.append(f"sequence {name} is {wanted - got} {plural(wanted - got, 'step')} behind")
    if expected.access is not None and found.access is not None:
        only_one_has = expected.schema.keys() ^ found.schema.keys()
        lines += access_differences(
            expected.access, found.access, only_one_has | {_PUBLIC_SCHEMA} - expected.access.objects.keys()
        )
    return lines


def _objects(conn: Connection[TupleRow], physical: bool, schemas: Schemas) -> dict[str, str]:
    found: dict[str, str] = {}
    parameters = {"physical": physical, **schemas.parameters}
    for identity, structure, exact in conn.execute(OBJECTS.encode(), parameters):
        # Functions and views of a part of a database may need the rest of it.
        if schemas.only and identity.partition(" ")[0] not in _OF_TABLES:
            continue
        # Every database has it, and a dump leaves it out.
        if physical or identity != _PUBLIC_SCHEMA:
            text = f"{structure}\0{exact}" if physical else structure
            found[identity] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def _listed(conn: Connection[TupleRow], kinds: str, persistence: str, schemas: Schemas) -> list[tuple[Any, ...]]:
    parameters = {"kinds": list(kinds), "persistence": list(persistence), **schemas.parameters}
    return conn.execute(_TABLES, parameters).fetchall()


def _table(conn: Connection[TupleRow], name: tuple[Any, ...]) -> TableState:
    # (t.*) rather than t, which would be a column of that name. The sum is the same in any order of the rows.
    query = sql.SQL(
        """select count(*), coalesce(sum(hashtextextended((t.*)::text collate "C", 0)::numeric), 0)::text from only {} t"""
    )
    rows, checksum = conn.execute(query.format(sql.Identifier(*name))).fetchone() or (0, "0")
    return TableState(rows, checksum)


def _portions(tables: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    for start in range(0, len(tables), _PER_STATEMENT):
        yield tables[start : start + _PER_STATEMENT]


def _not_all(conn: Connection[TupleRow], error: errors.InsufficientPrivilege) -> BackupError:
    user = sql.Identifier(conn.info.user).as_string()
    return BackupError(
        f"this role cannot back up all of the database: {_said(error)}: take it as the owner of the tables (the user of"
        f" the URL), or GRANT pg_read_all_data TO {user}, and where rows are hidden from it ALTER ROLE {user} BYPASSRLS"
    )


def _said(error: errors.Error) -> str:
    return error.diag.message_primary or type(error).__name__
