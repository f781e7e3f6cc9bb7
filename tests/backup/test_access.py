"""Owners and privileges: a logical backup is verified with them, and restored with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from b44_assets.backup import serialization as records
from b44_assets.backup.access import access_differences, access_of
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.model import Backup, BackupKind, DatabaseAccess
from b44_assets.backup.restoring import restore_logical
from b44_assets.backup.taking import take
from b44_assets.backup.verification import verify
from b44_assets.errors import BackupError
from b44_assets.postgres.connect import connect

# Of a database with roles: an owner, one who reads, one who is named by a policy only.
SHOP = """
create schema shop authorization {owner};
grant usage on schema shop to {reader};
create table shop.orders (id int generated always as identity primary key, who text default current_user, secret text);
create table shop.months (at date) partition by range (at);
create table shop.months_1 partition of shop.months for values from ('2026-01-01') to ('2026-02-01');
create type shop.state as enum ('open');
create view shop.seen as select id from shop.orders;
create function shop.reveal() returns text language sql security definer set search_path = '' as $$ select 'the secret' $$;
create procedure shop.work() language sql as $$ select 1 $$;
create statistics shop.stats on id, who from shop.orders;
insert into shop.orders (secret) values ('a'), ('b');
select lo_from_bytea(0, 'large');
alter table shop.orders owner to {owner};
alter table shop.months owner to {owner};
alter table shop.months_1 owner to {owner};
alter type shop.state owner to {owner};
alter view shop.seen owner to {owner};
alter function shop.reveal() owner to {owner};
alter statistics shop.stats owner to {owner};
grant select (id, who) on shop.orders to {reader};
grant select on shop.seen to public;
grant insert on shop.orders to {reader} with grant option;
grant usage on sequence shop.orders_id_seq to {reader};
revoke execute on function shop.reveal() from public;
grant execute on function shop.reveal() to {reader};
revoke usage on type shop.state from public;
revoke execute on function pg_catalog.pg_sleep(double precision) from public;
revoke usage on language plpgsql from public;
revoke usage on schema public from public;
revoke delete on shop.orders from {owner};
alter table shop.orders enable row level security;
create policy own on shop.orders for select to {named} using (who = current_user);
alter default privileges for role {owner} in schema shop grant select on tables to {reader};
alter default privileges for role {owner} revoke execute on functions from public;
revoke connect on database {database} from public;
grant connect on database {database} to {reader};
"""


@dataclass(frozen=True)
class Shop:
    """A database with roles of its own.

    Attributes:
        url: Of it, as superuser.
        owner: Who owns what is in it.
        reader: Who may read.
        named: Whom a policy names.
    """

    url: str
    owner: str
    reader: str
    named: str

    @property
    def roles(self) -> list[str]:
        return [self.owner, self.reader, self.named]

    def run(self, statement: str) -> sql.Composed:
        names = {name: sql.Identifier(getattr(self, name)) for name in ("owner", "reader", "named")}
        database = conninfo_to_dict(self.url)["dbname"]
        return sql.SQL(statement).format(**names, database=sql.Identifier(str(database)))  # pyright: ignore[reportArgumentType]


def make_shop(url: str) -> Generator[Shop]:
    unique = uuid.uuid4().hex[:8]
    shop = Shop(url, f"Own er {unique}", f'read"er {unique}', f"näm'd {unique}")
    with psycopg.connect(url, autocommit=True) as conn:
        for role in shop.roles:
            conn.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        conn.execute(shop.run(SHOP))
        yield shop
    # The roles of a cluster are everybody's: what is granted to them goes with them.
    with psycopg.connect(url, autocommit=True) as conn:
        drop_roles(url, shop.roles)


def drop_roles(url: str, roles: list[str]) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for role in roles:
            if conn.execute("select from pg_roles where rolname = %s", (role,)).fetchall():
                conn.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(role)))
                conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


@pytest.fixture
def shop(database: str) -> Generator[Shop]:
    """On either server."""
    yield from make_shop(database)


@pytest.fixture
def newest_shop(embedded_database: str) -> Generator[Shop]:
    yield from make_shop(embedded_database)


@pytest.fixture
def target(shop: Shop) -> Generator[str]:
    """URL of an empty database on the same server."""
    yield from an_empty_database(shop.url)


@pytest.fixture
def newest_target(newest_shop: Shop) -> Generator[str]:
    yield from an_empty_database(newest_shop.url)


def an_empty_database(url: str) -> Generator[str]:
    name = f"into_{uuid.uuid4().hex[:8]}"
    before = str(conninfo_to_dict(url)["dbname"])
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        try:
            yield url.replace(f"@/{before}?", f"@/{name}?")
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def read(url: str) -> DatabaseAccess:
    with connect(url, autocommit=True) as conn:
        return access_of(conn)


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


# -- as part of the verification ----------------------------------------------------------------------------------------------

CHANGES = {
    "a revoked function": "grant execute on function shop.reveal() to public",
    "a granted function": "revoke execute on function shop.reveal() from {reader}",
    "a procedure": "revoke execute on procedure shop.work() from public",
    "a table's owner": "alter table shop.orders owner to {reader}",
    "a view's owner": "alter view shop.seen owner to {reader}",
    "a partition": "grant select on shop.months_1 to {reader}",
    "a column": "revoke select (who) on shop.orders from {reader}",
    "another column": "grant update (secret) on shop.orders to {reader}",
    "a grant option": "revoke grant option for insert on shop.orders from {reader}",
    "the owner's own": "grant delete on shop.orders to {owner}",
    "a sequence": "revoke usage on sequence shop.orders_id_seq from {reader}",
    "a schema": "revoke usage on schema shop from {reader}",
    "a schema's owner": "alter schema shop owner to {reader}",
    "the schema public": "grant usage on schema public to public",
    "a type": "grant usage on type shop.state to public",
    "a type's owner": "alter type shop.state owner to {reader}",
    "a language": "grant usage on language plpgsql to public",
    "a function of the system": "grant execute on function pg_catalog.pg_sleep(double precision) to public",
    "statistics": "alter statistics shop.stats owner to {reader}",
    "default privileges": "alter default privileges for role {owner} in schema shop revoke select on tables from {reader}",
    "default privileges of all": "alter default privileges for role {owner} grant execute on functions to public",
    "the database": "grant connect on database {database} to public",
    "a large object": "do $$ declare n oid; begin select oid into n from pg_largeobject_metadata limit 1;"
    " execute format('grant select on large object %s to public', n); end $$",
}


def test_each_loss_of_an_owner_or_a_privilege_is_named(shop: Shop) -> None:
    before = read(shop.url)
    with connect(shop.url, autocommit=True) as conn:
        assert access_differences(before, access_of(conn), set()) == []
        for what, statement in CHANGES.items():
            with conn.transaction(force_rollback=True):
                conn.execute(shop.run(statement))
                assert access_differences(before, access_of(conn), set()), what


def test_what_is_needed_to_restore_it_is_known(shop: Shop) -> None:
    found = read(shop.url)

    assert set(shop.roles) <= set(found.roles)
    assert (shop.owner in found.owners, shop.reader in found.grantees, shop.named in found.named) == (True, True, True)
    assert not any(role.startswith("pg_") for role in found.own_roles)


def test_a_backup_is_good_only_with_the_owners_and_privileges_of_its_source(
    newest_shop: Shop, catalogue: Catalogue
) -> None:
    backup = take(BackupKind.LOGICAL, newest_shop.url, catalogue)

    assert backup.state.access is not None
    assert verify(catalogue, backup).good
    objects = {name: said.replace("PUBLIC", "nobody") for name, said in backup.state.access.objects.items()}
    wrong = verify(
        catalogue, replace(backup, state=replace(backup.state, access=replace(backup.state.access, objects=objects)))
    )
    assert wrong.verification is not None
    assert any(line.startswith("view shop.seen has [") for line in wrong.verification.differences)


def as_of_an_earlier_version(backup: Backup) -> Backup:
    record = records.from_backup(backup)
    del record["state"]["access"]
    return records.to_backup(record, "backup.json")


def test_a_backup_of_an_earlier_version_is_verified_and_restored(
    newest_shop: Shop, newest_target: str, catalogue: Catalogue
) -> None:
    backup = as_of_an_earlier_version(take(BackupKind.LOGICAL, newest_shop.url, catalogue))

    assert backup.state.access is None
    assert verify(catalogue, backup).good
    restore_logical(catalogue, backup, newest_target)
    assert ask(newest_target, "select count(*) from shop.orders") == 2


def test_a_record_gives_owners_and_privileges_back(newest_shop: Shop, catalogue: Catalogue) -> None:
    backup = take(BackupKind.LOGICAL, newest_shop.url, catalogue)

    assert catalogue.find(backup.id) == backup


# -- restoring ---------------------------------------------------------------------------------------------------------


def test_a_restored_database_has_the_owners_and_privileges_of_its_source(
    shop: Shop, target: str, catalogue: Catalogue
) -> None:
    restore_logical(catalogue, take(BackupKind.LOGICAL, shop.url, catalogue), target)

    assert access_differences(read(shop.url), read(target), set()) == []
    may = sql.SQL("select has_function_privilege({}, 'shop.reveal()', 'execute')")
    with psycopg.connect(target) as conn:
        assert conn.execute(may.format(sql.Literal(shop.named))).fetchone() == (False,)
        assert conn.execute(may.format(sql.Literal(shop.reader))).fetchone() == (True,)


def test_without_privileges_all_belongs_to_who_restores(shop: Shop, target: str, catalogue: Catalogue) -> None:
    told: list[str] = []
    restore_logical(
        catalogue, take(BackupKind.LOGICAL, shop.url, catalogue), target, privileges=False, tell=told.append
    )

    found = read(target)
    assert set(found.owners) - {"pg_database_owner"} == {"postgres"}
    assert not set(found.grantees) & set(shop.roles)
    assert told[-1].startswith("notice: all belongs to the role that restored it")


@pytest.mark.parametrize("privileges", [True, False])
def test_missing_roles_are_named_before_anything_is_restored(
    newest_shop: Shop, catalogue: Catalogue, pg15_elsewhere: str, privileges: bool
) -> None:
    backup = take(BackupKind.LOGICAL, newest_shop.url, catalogue)
    told: list[str] = []

    with pytest.raises(BackupError) as caught:
        restore_logical(catalogue, backup, pg15_elsewhere, privileges=privileges, tell=told.append)

    said = str(caught.value)
    named = newest_shop.roles if privileges else [newest_shop.named]
    assert all(sql.Identifier(role).as_string() in said for role in named)
    assert ("--no-privileges" in said, "\n" in said, told) == (privileges, False, [])
    assert ask(pg15_elsewhere, "select count(*) from pg_namespace where nspname = 'shop'") == 0


@pytest.fixture
def pg15_elsewhere(older_database: str) -> str:
    """URL of an empty database on a server that has none of the roles."""
    return older_database


def test_who_may_not_become_the_owner_is_told_so_before_anything_is_restored(
    newest_shop: Shop, newest_target: str, catalogue: Catalogue
) -> None:
    backup = take(BackupKind.LOGICAL, newest_shop.url, catalogue)
    restorer = f"restorer_{uuid.uuid4().hex[:8]}"
    database = str(conninfo_to_dict(newest_target)["dbname"])
    try:
        with psycopg.connect(newest_target, autocommit=True) as conn:
            conn.execute(sql.SQL("create role {} login").format(sql.Identifier(restorer)))
            conn.execute(
                sql.SQL("alter database {} owner to {}").format(sql.Identifier(database), sql.Identifier(restorer))
            )
        url = newest_target.replace("postgres@", f"{restorer}@")

        with pytest.raises(
            BackupError, match=rf"{restorer} may not give anything to .*{newest_shop.owner}.*--no-privileges"
        ):
            restore_logical(catalogue, backup, url)

        assert ask(newest_target, "select count(*) from pg_namespace where nspname = 'shop'") == 0
    finally:
        with psycopg.connect(newest_target, autocommit=True) as conn:
            conn.execute(sql.SQL("alter database {} owner to postgres").format(sql.Identifier(database)))
        drop_roles(newest_target, [restorer])


# -- all or nothing ----------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(database: str) -> str:
    """URL of a database with a table that is large enough for a restoration to be seen under way."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("create schema app")
        conn.execute(
            "create table app.rows as select g as n, repeat('x', 200) as filler from generate_series(1, 20000) g"
        )
        conn.execute("create index rows_n on app.rows (n)")
    return database


@pytest.fixture
def empty(plain: str) -> Generator[str]:
    yield from an_empty_database(plain)


def tables(url: str) -> object:
    return ask(url, "select count(*) from pg_namespace where nspname = 'app'")


def test_a_restoration_that_fails_leaves_an_empty_database_and_the_same_command_works_again(
    plain: str, empty: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = take(BackupKind.LOGICAL, plain, catalogue)
    whole = catalogue.fetch

    def cut(self: Catalogue, of: Backup, file: object, into: Path) -> None:
        whole(of, file, into)  # pyright: ignore[reportArgumentType]
        os.truncate(into, into.stat().st_size * 3 // 4)

    with monkeypatch.context() as patch:
        patch.setattr(Catalogue, "fetch", cut)
        with pytest.raises(BackupError, match=backup.id):
            restore_logical(catalogue, backup, empty)
    assert tables(empty) == 0

    restore_logical(catalogue, backup, empty)
    assert ask(empty, "select count(*) from app.rows") == 20000


def test_what_the_server_refuses_at_the_very_end_undoes_all(plain: str, empty: str, catalogue: Catalogue) -> None:
    with psycopg.connect(plain, autocommit=True) as conn:
        conn.execute(
            "create function app.fine(n int) returns bool language plpgsql immutable as 'begin return true; end'"
        )
        conn.execute("create index rows_fine on app.rows (app.fine(n))")
        conn.execute(
            "create or replace function app.fine(n int) returns bool language plpgsql immutable as 'begin return 1 / 0 > n; end'"
        )
    backup = take(BackupKind.LOGICAL, plain, catalogue)

    with pytest.raises(BackupError, match="division by zero") as caught:
        restore_logical(catalogue, backup, empty)

    assert "\n" not in str(caught.value)
    assert tables(empty) == 0


KILLED = """
import os, signal, sys
from b44_assets.backup import restoring
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.store import Store
catalogue = Catalogue(Store.at(sys.argv[1]))
copy = restoring.shutil.copyfileobj

def die(source, sink, size=0):
    data = source.read(size)
    while len(data) < 500_000 and (more := source.read(size)):
        data += more
    if len(data) >= 500_000:
        sink.write(data[:-7])
        sink.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    sink.write(data)

restoring.shutil.copyfileobj = die
restoring.restore_logical(catalogue, catalogue.find(sys.argv[2]), sys.argv[3])
"""


def test_a_restoration_that_is_killed_leaves_nothing_and_the_same_command_works_again(
    plain: str, empty: str, catalogue: Catalogue
) -> None:
    backup = take(BackupKind.LOGICAL, plain, catalogue)
    command = [sys.executable, "-c", KILLED, catalogue.store.location, backup.id, empty]
    died = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, check=False)
    assert died.returncode == -signal.SIGKILL

    restore_logical(catalogue, backup, empty)

    assert ask(empty, "select count(*) from app.rows") == 20000


def test_what_somebody_makes_before_it_begins_is_not_touched(plain: str, empty: str, catalogue: Catalogue) -> None:
    """Between the first look and the transaction."""
    backup = take(BackupKind.LOGICAL, plain, catalogue)

    def meanwhile(step: str) -> None:
        if step.startswith("loading"):
            with psycopg.connect(empty, autocommit=True) as conn:
                conn.execute("create schema app; create table app.rows as select 1 as n")

    with pytest.raises(BackupError, match=r"it has the table app\.rows already"):
        restore_logical(catalogue, backup, empty, tell=meanwhile)

    assert ask(empty, "select array_agg(n) from app.rows") == [1]


@pytest.mark.parametrize(
    ("kind", "name", "definition"),
    [
        ("schema", "app", ""),
        ("table", "public.twice", "()"),
        ("view", "public.twice", "as select 1"),
        ("function", "public.added", "() returns int language sql return 1"),
    ],
)
def test_what_a_backup_would_make_is_in_the_way_and_nothing_else(
    plain: str, empty: str, catalogue: Catalogue, kind: str, name: str, definition: str
) -> None:
    with psycopg.connect(plain, autocommit=True) as conn:
        conn.execute("create table twice (); create function added() returns int language sql return 2")
    backup = take(BackupKind.LOGICAL, plain, catalogue)
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("create schema auth; create table auth.users as select 7 as n; create table others ()")
        conn.execute(f"create {kind} {name} {definition}".encode())

    with pytest.raises(BackupError, match=rf"it has the {kind} {name} already"):
        restore_logical(catalogue, backup, empty)

    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute(f"drop {kind} {name}".encode())
    restore_logical(catalogue, backup, empty)
    assert (ask(empty, "select count(*) from app.rows"), ask(empty, "select n from auth.users")) == (20000, 7)
