"""The account that a server started by root runs as."""

from __future__ import annotations

import pwd
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from b44_assets.errors import DatabaseError
from b44_assets.postgres.embedded import accounts


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lists the accounts of a machine that has none of a server's, and whose useradd takes its time."""
    added = tmp_path / "added"
    added.touch()
    monkeypatch.setattr(accounts, "_ACCOUNTS_LOCK", tmp_path / "lock")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    useradd = tmp_path / "useradd"
    useradd.write_text(f"#!/bin/sh\nsleep 0.2\necho added >>{added}\n")
    useradd.chmod(0o755)

    def find(name: str) -> pwd.struct_passwd:
        if number := len(added.read_text().splitlines()):
            return pwd.struct_passwd((name, "x", number, number, "", "/nonexistent", "/usr/sbin/nologin"))
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", find)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return added


def test_several_first_servers_at_once_get_one_account(machine: Path, tmp_path: Path) -> None:
    barrier = Barrier(4)

    def account(number: int) -> accounts.Account | None:
        barrier.wait(10)
        return accounts.server_account(tmp_path / f"home{number}")

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(account, range(4)))
    assert found == {accounts.Account("pgserver", 1, 1)}
    assert machine.read_text() == "added\n"


def test_an_account_that_cannot_be_added_is_told_in_one_line(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "useradd").write_text("#!/bin/sh\necho usage\necho no more accounts >&2\nexit 1\n")
    with pytest.raises(DatabaseError, match=r"'pgserver' to run it cannot be added \(no more accounts\)"):
        accounts.server_account(tmp_path / "home")
    monkeypatch.setattr(accounts, "_ACCOUNTS_LOCK", tmp_path / "nowhere" / "lock")
    with pytest.raises(DatabaseError, match="cannot be added"):
        accounts.server_account(tmp_path / "home")
