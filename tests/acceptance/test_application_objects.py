"""What an application makes beside the migrated tables, and adds to them, fails no check; what it changes of them does."""

from __future__ import annotations

import psycopg

from b44_assets.catalog import load_catalog
from b44_assets.schema.drift import schema_drift
from b44_assets.session import Session
from tests.helpers.command import Command
from tests.helpers.paths import REPOSITORY

DRIFT = "monitoring/index_usage schema_drift"


def test_objects_of_the_application_are_no_failure_and_a_changed_table_is(b44: Command, finished: str) -> None:
    command = b44.on(finished)
    with psycopg.connect(finished, autocommit=True) as conn:
        conn.execute("create type mood as enum ('good', 'bad')")
        conn.execute("create table carts (id bigserial primary key, owner uuid references users (id), mood mood)")
        conn.execute("create view open_carts as select * from carts")
        conn.execute("create function cart_total(bigint) returns bigint language sql as 'select 1::bigint'")
        conn.execute("create index by_hand on users (display_name)")
        assert schema_drift(Session(finished, load_catalog(REPOSITORY / "sql"))).passed
        conn.execute("alter table users add constraint chk_by_hand check (email <> 'nobody@example.org')")
        result = command("verify")
        assert result.status == 0, result
        [line] = [line for line in result.complaints if DRIFT in line]
        assert line.startswith(f"warning: {DRIFT}: constraint users.chk_by_hand is not in sql/")
        conn.execute("alter table users drop constraint chk_users_role_valid")
        result = command("verify")
        assert result.status == 1, result
        assert f"failed: {DRIFT}: constraint users.chk_users_role_valid is missing" in result.out + result.err
