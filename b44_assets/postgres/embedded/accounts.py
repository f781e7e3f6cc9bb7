"""The account of the operating system that the server runs as, and files that are its own."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from b44_assets.atomic_files import write_atomically
from b44_assets.errors import DatabaseError
from b44_assets.postgres.embedded.processes import last_line

# The account that a server started by root runs as; data directories made by earlier versions belong to it.
_ACCOUNT = "pgserver"
# What it takes to give files to an account, to become it, to read what is its own and to end its processes.
_CAPABILITIES = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
# The file by which programs that change the accounts keep out of each other's way. They lock it with fcntl, which flock
# does not collide with.
_ACCOUNTS_LOCK = Path("/etc/.pwd.lock")


@dataclass(frozen=True)
class Account:
    """The operating system's account that the server runs as when we are root.

    Attributes:
        name: Its name.
        uid: Its number.
        gid: That of its group.
    """

    name: str
    uid: int
    gid: int


class RunningAs(TypedDict):
    """How `subprocess` is to run a program of the server's."""

    user: int | None
    group: int | None
    extra_groups: Sequence[int] | None
    cwd: Path
    env: dict[str, str]
    start_new_session: bool


def server_account(directory: Path) -> Account | None:
    """Returns whom to run the server as; `None` is ourselves.

    PostgreSQL refuses to run as root. Root therefore runs a server as the owner of its folder, which may be a user who
    made it without root, and a new one as an account of its own.

    Raises:
        DatabaseError: The folder is another account's, or we are a root that may not become another account.
    """
    try:
        owner = directory.stat().st_uid
    except FileNotFoundError:
        owner = None
    except PermissionError as error:
        raise foreign(directory) from error
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            raise foreign(directory)
        return None
    _require_capabilities()
    if owner:
        try:
            group = pwd.getpwuid(owner).pw_gid
        except KeyError:
            group = directory.stat().st_gid
        return Account(_name(owner), owner, group)
    entry = _find_account(_ACCOUNT) or _make_account(_ACCOUNT)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _require_capabilities() -> None:
    """Refuses a root from which rights were taken, as containers do; where the kernel does not say, it is found out by trying."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if found is None:
        return
    effective = int(found[1], 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise DatabaseError(
            f"PostgreSQL does not run as root, and this root may not run it as another account (it lacks {', '.join(missing)}):"
            " run as an ordinary user, or set B44_DATABASE_URL"
        )


def _find_account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _make_account(name: str) -> pwd.struct_passwd:
    """Adds an account unless another process has just added it.

    Of two `useradd` at once the second one gives the account another number, and the folders that the first one's
    server has made belong to nobody.
    """
    try:
        with locked(_ACCOUNTS_LOCK, None):
            return _find_account(name) or _add_account(name)
    except OSError as error:
        raise _not_added(name, str(error)) from error


def _add_account(name: str) -> pwd.struct_passwd:
    commands = (
        ("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name),
        # BusyBox, where there is no useradd; Debian's program of this name has other options.
        ("adduser", "-S", "-D", "-H", "-s", "/sbin/nologin", name),
    )
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    said = "there is neither useradd nor adduser"
    for command in commands:
        program = shutil.which(command[0], path=path)
        if program is None:
            continue
        result = subprocess.run([program, *command[1:]], capture_output=True, text=True, errors="replace", check=False)
        # Asked even after a failure, since another program may have added it meanwhile.
        if entry := _find_account(name):
            return entry
        said = last_line(result.stderr)
        break
    raise _not_added(name, said)


def _not_added(name: str, reason: str) -> DatabaseError:
    return DatabaseError(
        f"PostgreSQL does not run as root, and the account {name!r} to run it cannot be added ({reason}):"
        " run as an ordinary user, or set B44_DATABASE_URL"
    )


def foreign(directory: Path) -> DatabaseError:
    """What to say of a folder that belongs to another account."""
    try:
        owner = _name(directory.stat().st_uid)
    except OSError:
        return DatabaseError(f"{directory} cannot be reached by this account: set B44_HOME to a folder of your own")
    return DatabaseError(
        f"{directory} belongs to {owner}: run as the account that made it or as root, or set another B44_HOME"
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def running_as(account: Account | None, directory: Path) -> RunningAs:
    """Returns how to run a program in a folder, as an account and out of reach of the terminal's signals.

    Args:
        account: As of `server_account`.
        directory: The working directory.
    """
    return RunningAs(
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else (),
        cwd=directory,
        # A clean environment: PGPORT, PGOPTIONS or the language of the caller must not reach the server.
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        start_new_session=True,
    )


def name_for(account: Account | None, directory: Path) -> str:
    """Returns the path by which a program that runs in a folder as an account can reach that folder.

    Raises:
        DatabaseError: If there is none.
    """
    open_to_us = account is None or may_pass(directory, account)
    # pg_ctl puts the name between double quotes for a shell, in which these mean something else.
    if open_to_us and not set(str(directory)) & set('"$`\\\n'):
        return str(directory)
    # Folders above are closed to the account; this link the kernel resolves without walking through them.
    if not Path("/proc/self/cwd").exists():
        if account is None or open_to_us:
            raise DatabaseError(
                f"PostgreSQL cannot be run in {str(directory)!r}: use a folder (B44_HOME) of an ordinary name"
            )
        raise DatabaseError(
            f"the account {account.name!r}, which runs PostgreSQL for root, cannot reach {directory}:"
            " use a folder (B44_HOME) that every account can pass through, or run as an ordinary user"
        )
    return "/proc/self/cwd"


def make_directory(path: Path, account: Account | None) -> None:
    """Makes a private folder of the account's if there is none; one that root made becomes the account's."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if account is not None and path.lstat().st_uid == 0:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def write_file(path: Path, text: str, account: Account | None) -> None:
    """Puts a file in place at once, following no link that the folder's owner may have laid for root."""
    owner = None if account is None else (account.uid, account.gid)
    write_atomically(path, text.encode("utf-8"), mode=0o600, owner=owner)


def open_lock(path: Path, account: Account | None) -> int:
    """Opens a file of the account's to be locked, following no link."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if account is not None:
        os.fchown(descriptor, account.uid, account.gid)
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Takes the lock of an open file, unless another process has it; tells whether it did."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, account: Account | None) -> Generator[None]:
    """Holds a lock among processes; it goes with the process that holds it."""
    descriptor = open_lock(path, account)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def may_pass(path: Path, account: Account) -> bool:
    """Tells from the permission bits whether the account can walk to a folder or file and read it, links resolved."""
    path = path.resolve()
    return _permits(path, account, 4) and all(_permits(folder, account, 1) for folder in path.parents)


def _permits(path: Path, account: Account, bit: int) -> bool:
    found = path.stat()
    shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
    return bool(found.st_mode >> shift & bit)
