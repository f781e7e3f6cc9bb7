"""Which installation's programs talk to a server: of its full version where there is one, able to encrypt where need be."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.backup.restoring import without_internal_options
from b44_assets.backup.tools import server_programs
from b44_assets.errors import DatabaseError
from b44_assets.postgres import clients
from b44_assets.postgres.clients import Clients, available, choose, newest, shown

ORIGINS = ("configured", "system", "bundled")


def installed(version: int, origin: str = "system", *, encrypts: bool = True) -> Clients:
    return Clients(Path(f"/{origin}/{version}"), version, origin, encrypts)


VERSIONS = st.builds(lambda major, minor: major * 10_000 + minor, st.integers(15, 19), st.integers(0, 25))
INSTALLATIONS = st.lists(st.builds(installed, VERSIONS, st.sampled_from(ORIGINS), encrypts=st.booleans()), max_size=5)


@pytest.mark.parametrize(
    ("server", "there", "chosen"),
    [
        # Of the server's own version, though the bundled ones are of a newer one.
        (150020, [installed(150020), installed(180006, "bundled")], 150020),
        # An older minor release of the same version does not know it any better than a newer version.
        (150020, [installed(150018), installed(180006, "bundled")], 180006),
        (180004, [installed(180006, "bundled"), installed(150020)], 180006),
        # What was configured, where it serves.
        (150020, [installed(170012, "configured"), installed(180006, "bundled")], 170012),
        (150020, [installed(170012, "configured"), installed(150020)], 150020),
        (180004, [installed(150020, "configured"), installed(180006, "bundled")], 180006),
    ],
)
def test_programs_that_know_the_server_go_first(server: int, there: list[Clients], chosen: int) -> None:
    assert choose(there, server, encrypted=False).version == chosen


def test_an_encrypted_connection_wants_programs_that_can_encrypt() -> None:
    there = [installed(150020, encrypts=False), installed(160012)]

    assert choose(there, 150020, encrypted=True).version == 160012
    with pytest.raises(
        DatabaseError, match=r"encrypted, and no pg_dump .*: install postgresql-client-18, or set B44_PG_BIN"
    ):
        choose([installed(180006, "bundled", encrypts=False)], 180006, encrypted=True)


def test_a_server_newer_than_all_programs_is_told_with_the_remedy() -> None:
    with pytest.raises(
        DatabaseError, match=r"PostgreSQL 19\.1, and no pg_dump .*: install postgresql-client-19, or set"
    ):
        choose([installed(180006, "bundled")], 190001, encrypted=False)


@given(INSTALLATIONS, VERSIONS, st.booleans())
def test_what_is_chosen_serves_and_nothing_that_knows_the_server_is_passed_over(
    there: list[Clients], server: int, encrypted: bool
) -> None:
    able = [each for each in there if each.version // 10_000 >= server // 10_000 and (each.encrypts or not encrypted)]
    if not able:
        with pytest.raises(DatabaseError):
            choose(there, server, encrypted=encrypted)
        return
    chosen = choose(there, server, encrypted=encrypted)

    assert chosen in able
    assert chosen.knows(server) or not any(each.knows(server) for each in able)
    assert newest(there, server, encrypted=encrypted).version >= chosen.version


def test_the_programs_of_this_machine_are_found_with_their_full_version() -> None:
    found = available()

    assert "bundled" in {each.origin for each in found}
    assert len({each.folder for each in found}) == len(found)
    assert all(150000 < each.version < 300000 for each in found)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A pg_dump that says that it is of a version, and cannot encrypt."""
    path = tmp_path / "pg_dump"
    path.write_text(
        "#!/bin/sh\n"
        "if [ \"$1\" = --version ]; then echo 'pg_dump (PostgreSQL) 17.11 (of somebody)'; else"
        " echo 'pg_dump: error: sslmode value \"require\" invalid when SSL support is not compiled in' >&2; exit 1; fi\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_configured_folder_is_asked_what_it_is(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "INSTALLED", ())

    first = available(program.parent)[0]

    assert (shown(first.version), first.origin, first.encrypts) == ("17.11", "configured", False)


@pytest.mark.parametrize("choosing", [available, lambda folder: server_programs(18, folder)])
def test_a_configured_folder_without_programs_is_refused(choosing: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=rf"B44_PG_BIN={tmp_path} has no pg_dump that runs"):
        choosing(tmp_path)


# -- what older programs write down of a newer server ----------------------------------------------------------------


NAMES = st.one_of(
    st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_characters='\0\r\n"'), min_size=1, max_size=20).map(
        lambda name: f'"{name}"'
    ),
)
OPTIONS = st.lists(st.sampled_from(["n_distinct=5", "n_distinct=-0.5", "n_distinct_inherited=-1"]), max_size=2)


@given(NAMES, NAMES, OPTIONS, st.integers(0, 2**40), st.integers(0, 2))
def test_internal_options_of_a_column_go_and_others_stay(
    table: str, column: str, options: list[str], version: int, place: int
) -> None:
    def line(among: list[str]) -> bytes:
        return f"ALTER TABLE ONLY public.{table} ALTER COLUMN {column} SET ({', '.join(among)});\n".encode()

    internal = [*options[:place], f"pg_attver={version}", *options[place:]]

    assert without_internal_options(line(internal)) == (line(options) if options else b"")
    if options:
        assert without_internal_options(line(options)) == line(options)


@pytest.mark.parametrize(
    "line",
    [
        b"ALTER TABLE ONLY public.t ALTER COLUMN a SET STATISTICS 0;\n",
        b"ALTER TABLE ONLY public.t ALTER COLUMN a SET DEFAULT (pg_catalog.now());\n",
        b"ALTER TABLE public.t SET (fillfactor=70);\n",
        b"-- Name: t; Type: TABLE; Schema: public; Owner: pg_owner\n",
    ],
)
def test_other_lines_of_a_dump_stay(line: bytes) -> None:
    assert without_internal_options(line) == line
