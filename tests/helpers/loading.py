"""What the tests of backups fill a database with, and what writes to it meanwhile."""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from b44_assets.backup.lsn import position
from b44_assets.postgres.embedded.binaries import install_dir

# One of each kind of object, with what is known to come back differently if one is careless: names that need quotes, a
# column that is named like an alias, a list of constants in a check, comments, text that needs escaping.
ZOO = r"""
create schema app;
create schema "Odd Name";
comment on schema app is 'the app''s own';
create type app.mood as enum ('sad', 'ok', 'happy');
create type app.place as (street text, number int);
create domain app.email as text check (value ~ '@') not null;
create sequence app.free start 100 increment 7;
select nextval('app.free'), nextval('app.free');
create sequence app.down increment -1;
select nextval('app.down'), nextval('app.down'), nextval('app.down');
create function app.touch() returns trigger language plpgsql as $$
begin
  new.touched := now();  -- 'quoted'
  return new;
end $$;
create function app.double(n int default 2) returns int language sql immutable strict parallel safe return n * 2;
create function app.low(x text) returns text language sql immutable as $$ select lower(x) $$;
comment on function app.low(text) is 'in small letters';
create table app.people (
  id int generated always as identity primary key,
  t text not null default 'ä',
  kind varchar(10) check (kind in ('a', 'b', 'c')),
  mood app.mood default 'ok',
  home app.place,
  mail app.email default 'a@b',
  low text generated always as (lower(t)) stored,
  tags text[],
  data jsonb,
  amount numeric(12, 3),
  ratio double precision,
  paid money,
  at timestamptz default now(),
  span interval,
  raw bytea,
  touched timestamptz,
  old int
);
alter table app.people drop column old;
comment on column app.people.t is 'it''s text';
create trigger touching before update of t on app.people for each row when (old.t is distinct from new.t)
  execute function app.touch('x');
create unique index people_low on app.people (lower(t), id desc) include (mood) where t <> '';
create index people_tags on app.people using gin (tags);
create statistics app.people_stats on kind, mood from app.people;
alter table app.people enable row level security;
create policy mine on app.people for select to public using (t = current_user);
insert into app.people (t, kind, home, tags, data, amount, ratio, paid, span, raw)
select case when i % 7 = 0 then E'tab\there, É' || i else 'person ' || i end, (array['a', 'b', 'c', null])[1 + i % 4],
  row('street, "' || i, i)::app.place, array['x', 'y', null], jsonb_build_object('n', i, 'é', 1.0), i / 3.0, i / 7.0,
  i * 1.5, make_interval(mins => i), decode(md5(i::text), 'hex')
from generate_series(1, 300) i;
create table app.months (at date not null, n int, note text) partition by range (at);
create table app.months_1 partition of app.months for values from ('2026-01-01') to ('2026-02-01');
create table app.months_2 (note text, n int, at date not null);
alter table app.months attach partition app.months_2 for values from ('2026-02-01') to ('2026-03-01');
alter table app.months add primary key (at, n);
insert into app.months select date '2026-01-01' + i, i, 'n' || i from generate_series(0, 50) i;
create function app.refuse() returns trigger language plpgsql as $$ begin raise exception 'no more'; end $$;
create trigger refusing before insert on app.months for each row execute function app.refuse();
create table app.notes (at date, n int, person int references app.people on delete cascade deferrable,
  foreign key (at, n) references app.months);
insert into app.notes select date '2026-01-01' + i, i, i + 1 from generate_series(0, 20) i;
alter table app.notes add constraint later check (n < 1000) not valid;
create unlogged table app.cache as select i from generate_series(1, 10) i;
create view app.happy with (security_barrier) as select id, t, app.double(id) as twice from app.people where mood <> 'sad';
create view app.low_people as select p.low from app.people p join app.happy h using (id);
create rule nothing as on insert to app.low_people do instead nothing;
create materialized view app.counts as select kind, count(*) as n from app.people group by kind;
create unique index counts_kind on app.counts (kind);
create materialized view app.never as select 1 as one with no data;
create table "Odd Name"."Ta""ble" ("Co l" int default nextval('app.free'), " " text);
insert into "Odd Name"."Ta""ble" (" ") values (null), (''), (' ');
alter sequence app.free owned by app.people.t;
create publication pub for table app.people;
select lo_from_bytea(0, 'a large object');
"""


def clear(url: str) -> None:
    """Makes a database empty."""
    with psycopg.connect(url, autocommit=True) as conn:
        schemas = conn.execute(
            "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
        ).fetchall()
        for (name,) in schemas:
            conn.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))
        conn.execute("create schema public; drop publication if exists pub")
        conn.execute("select lo_unlink(oid) from pg_largeobject_metadata")


@dataclass(frozen=True)
class Commit:
    """A commit as it stands in the WAL."""

    lsn: int
    xid: int
    at: datetime


def commits(wal: Path, start: str, end: str | None = None) -> tuple[list[Commit], dict[str, int]]:
    """Reads the commits in the order in which they stand in the WAL, and the position of each restore point."""
    command = [
        str(install_dir() / "bin" / "pg_waldump"),
        f"--path={wal}",
        f"--start={start}",
        "--rmgr=Transaction",
        "--rmgr=XLOG",
    ]
    command += [f"--end={end}"] if end else []
    said = subprocess.run(command, env={"TZ": "UTC", "LC_ALL": "C"}, capture_output=True, text=True, check=False).stdout
    found: list[Commit] = []
    points: dict[str, int] = {}
    for line in said.splitlines():
        match = re.search(
            r"tx: +([0-9]+), lsn: ([0-9A-F/]+),.* desc: (COMMIT|RESTORE_POINT) (\S+)(?: ([0-9:.]+) UTC)?", line
        )
        if match is None:
            continue
        xid, lsn, what, word, clock = match.groups()
        if what == "COMMIT":
            found.append(Commit(position(lsn), int(xid), datetime.fromisoformat(f"{word} {clock}+00:00")))
        else:
            points[word] = position(lsn)
    return found, points


@contextmanager
def writing(url: str, writers: int = 3) -> Generator[None]:
    """Writes for the block, as fast as it goes: short transactions, some longer, some that roll back.

    Each that commits leaves its number in `a` and in `b`.
    """
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create table if not exists a (xid bigint, writer int, n int, filler text)")
        conn.execute("create table if not exists b (xid bigint)")
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        chance = random.Random(writer)
        try:
            with psycopg.connect(url) as conn:
                n = 0
                while not stop.is_set():
                    n += 1
                    conn.execute(
                        "insert into a select pg_current_xact_id()::text::bigint, %s, %s, repeat('x', %s)",
                        (writer, n, chance.randrange(200)),
                    )
                    if chance.random() < 0.05:
                        stop.wait(chance.random() / 20)
                    conn.execute("insert into b select pg_current_xact_id()::text::bigint")
                    if chance.random() < 0.1:
                        conn.rollback()
                    else:
                        conn.commit()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    try:
        with psycopg.connect(url, autocommit=True) as conn:
            while not conn.execute("select from b limit 1").fetchall() and not failures:
                time.sleep(0.01)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
