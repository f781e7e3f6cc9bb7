"""The program's own tables and functions, installed in the target before anything of an app.

What belongs here: schema `b44`, which stays, and schema `migration`, which goes after the cut-over. What does not: the
objects of an app.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from b44_assets.catalog import Catalog, Kind, Spec
from b44_assets.schema.apply import apply_on, hold_schema_lock, is_finished, routines_made
from b44_assets.schema.online_ddl import change
from b44_assets.schema.standard_roles import install_standard_roles
from b44_assets.session import Connection, Session, scalar, with_retry

STAYING = "b44/"
"""How the names of files begin whose objects stay after the cut-over."""

_RELATION = re.compile(
    r"create\s+(?:unlogged\s+|or\s+replace\s+)?(?:table|view)\s+(?:if\s+not\s+exists\s+)?(\w+)\.(\w+)", re.IGNORECASE
)
_FORM = "names:"
"""What a digest of objects begins with that is the same in a database that was restored."""
_STATE = ("b44/schema", "b44/migration_state")


def install_runtime(session: Session, *, over: bool = False) -> bool:
    """Bring the program's own tables and functions into the target; does nothing where they are as this version has them.

    All in one transaction. What an earlier version has made is changed in place: then the functions of the app are made anew
    in the same transaction, since those of the earlier version call what is no longer there under its old name.

    Afterwards the group roles are there, with their rights on what is there of the app.

    Args:
        session: The run.
        over: Whether the migration is over, and its tables, dropped by hand perhaps, are not to come back.

    Returns:
        Whether anything had to be done.

    Raises:
        DatabaseError: The role may not create a schema, or a statement fails; names file and line.
    """
    wanted = runtime_digest(session.catalog)

    def install() -> bool:
        with session.connection("install schema b44") as conn:
            if _installed(conn) == (wanted, *_made(conn, session, over)):
                return False
            change(session, conn, lambda c: _install(c, session, wanted, over))
            return True

    done = with_retry(session, install)
    with_retry(session, lambda: install_standard_roles(session))
    return done


def runtime_digest(catalog: Catalog) -> str:
    """SHA-256 of the program's own files, 64 hex digits."""
    return hashlib.sha256("".join(spec.digest for spec in catalog.of(Kind.RUNTIME)).encode()).hexdigest()


def install_state(conn: Connection, session: Session) -> None:
    """Make the tables of schema `b44` that say how far the migration is, where they are not there yet.

    Raises:
        psycopg.Error: The role may not create a schema.
    """
    with conn.transaction():
        for spec in session.catalog.of(Kind.RUNTIME):
            if spec.name in _STATE:
                apply_on(conn, spec)


def public_functions(catalog: Catalog) -> frozenset[str]:
    """The names of the program's functions that stand in schema public, for whoever calls them by hand."""
    made = (name.split(".") for name in routines_made(catalog.of(Kind.RUNTIME)))
    return frozenset(name for schema, name in made if schema == "public")


def runtime_drift(conn: Connection, session: Session) -> str | None:
    """Tell in a line what differs between the program's own objects and what was installed; None where nothing does."""
    installed = _installed(conn)
    if installed is None or not installed[1].startswith(_FORM) or installed[1] == _made(conn, session, over=True)[0]:
        # An earlier version noted it otherwise: by numbers that another database has not.
        return None
    return "functions or tables of schema b44 were changed by hand (b44 migrate makes them anew)"


def is_current(conn: Connection, session: Session) -> bool:
    """Tell whether the program's own objects are there, and as this version makes them; only reads."""
    return _installed(conn) == (runtime_digest(session.catalog), *_made(conn, session, over=False))


def program_state(conn: Connection, session: Session) -> str:
    """What this version would do with the program's own schemas: they are `made`, `changed`, or `kept` as they are; only reads."""
    installed = _installed(conn)
    if installed is None:
        return "made"
    return "kept" if installed[:1] == (runtime_digest(session.catalog),) else "changed"


def _install(conn: Connection, session: Session, digest: str, over: bool) -> None:
    with conn.transaction():
        hold_schema_lock(conn)
        upgraded = bool(scalar(conn, "select to_regprocedure('public.base44_trim(text)') is not null"))
        for spec in session.catalog.of(Kind.RUNTIME, *((Kind.FUNCTION,) if upgraded else ())):
            if not over or spec.kind is Kind.FUNCTION or spec.name.startswith(STAYING):
                apply_on(conn, spec)
        conn.execute(
            "insert into b44.runtime_version (digest) values (%s)"
            " on conflict (only_row) do update set digest = excluded.digest, installed_at = excluded.installed_at",
            (" ".join((digest, *_made(conn, session, over))),),
        )


def _installed(conn: Connection) -> tuple[str, ...] | None:
    """The digest of the files that were installed, and those of what they made."""
    if scalar(conn, "select to_regclass('b44.runtime_version') is null"):
        return None
    digests: str | None = scalar(conn, "select digest from b44.runtime_version")
    return None if digests is None else tuple(digests.split())


def _made(conn: Connection, session: Session, over: bool) -> tuple[str, str]:
    """MD5 of what the files have made and stays, and of what goes, as it is now: what was changed by hand is made anew."""
    specs = session.catalog.of(Kind.RUNTIME)
    staying = _digest_of_objects(conn, [spec for spec in specs if spec.name.startswith(STAYING)])
    if over or is_finished(conn):
        return staying, "-"
    return staying, _digest_of_objects(conn, [spec for spec in specs if not spec.name.startswith(STAYING)])


def _digest_of_objects(conn: Connection, specs: Sequence[Spec]) -> str:
    routines = sorted(routines_made(specs))
    texts = [statement.text for spec in specs for statement in spec.statements]
    relations = {f"{match[1]}.{match[2]}" for text in texts for match in _RELATION.finditer(text)}
    digest: str = scalar(
        conn,
        """
        select md5(concat(
          (select string_agg(concat_ws(' ', pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'),
                    (select string_agg(a::text, ',' order by a::text) from unnest(p.proacl) a
                      -- Group roles may be missing on another server.
                      where a::text !~ '^b44_(owner|migrator|readwrite|readonly|monitor)=')), ' ' order by p.oid::regprocedure::text)
             from pg_proc p
             join pg_namespace n on n.oid = p.pronamespace
            -- By their names they are found in an index, among the thousands that the server has.
            where p.proname = any(%(names)s) and format('%%s.%%s', n.nspname, p.proname) = any(%(routines)s)
              and p.prokind in ('f', 'p')),
          (select string_agg(concat_ws(' ', r.name, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull), ' '
                    order by r.name, a.attname)
             from unnest(%(relations)s::text[]) r (name)
             left join pg_attribute a on a.attrelid = to_regclass(r.name) and a.attnum > 0 and not a.attisdropped)))
        """,
        {
            "routines": routines,
            "names": [name.partition(".")[2] for name in routines],
            "relations": sorted(relations),
        },
    )
    return _FORM + digest
