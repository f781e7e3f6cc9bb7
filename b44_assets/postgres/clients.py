"""Choose the installation whose client programs (`pg_dump`, `pg_restore`, `psql`, …) talk to a server.

A program of an older minor release does not know what a newer server keeps: servers of November 2026's minors have an
internal `pg_attver` among the options of every column, which older `pg_dump` writes down as if it were a user's. So the
full version counts, and that the connection can be encrypted, which the bundled programs cannot do.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from b44_assets.errors import DatabaseError
from b44_assets.postgres.embedded.binaries import install_dir

# Where Debian's packages and others' put the programs of each major version.
INSTALLED = (
    "/usr/lib/postgresql/{}/bin",
    "/usr/pgsql-{}/bin",
    "/usr/local/pgsql-{}/bin",
    "/opt/homebrew/opt/postgresql@{}/bin",
)
_MAJORS = range(15, 30)


@dataclass(frozen=True)
class Clients:
    """The client programs of one installation.

    Attributes:
        folder: Where they are.
        version: As in `server_version_num`: 150020 for 15.20.
        origin: `configured` (`B44_PG_BIN`), `system`, or `bundled`.
        encrypts: Whether they can open a TLS connection.
    """

    folder: Path
    version: int
    origin: str
    encrypts: bool

    def program(self, name: str) -> str:
        """Return the path of one of them."""
        return str(self.folder / name)

    def knows(self, server_version: int) -> bool:
        """Tell whether they are surely new enough for all that a server keeps: of its major version, and no older minor.

        A newer major version reads an older server, but nothing in its number says which minors of that one it knows.
        """
        return self.version // 10_000 == server_version // 10_000 and self.version >= server_version

    def __str__(self) -> str:
        return f"PostgreSQL {shown(self.version)}, {self.origin}, {self.folder}"


def shown(version: int) -> str:
    """Return a `server_version_num` as people write it: 150020 as 15.20."""
    return f"{version // 10_000}.{version % 10_000}"


def available(configured: Path | None = None) -> list[Clients]:
    """Return all installations of client programs on this machine: configured, the system's, bundled.

    Args:
        configured: `B44_PG_BIN`, if set.

    Raises:
        DatabaseError: The package with the bundled ones is not installed, or there are none where they were configured.
    """
    found: dict[Path, Clients] = {}

    def consider(folder: Path, origin: str) -> None:
        version = _version(folder / "pg_dump")
        if version is not None:
            found.setdefault(folder.resolve(), Clients(folder, version, origin, _encrypts(folder / "pg_dump")))

    if configured is not None:
        require_configured(configured)
        consider(configured, "configured")
    for major in _MAJORS:
        for folder in system_folders(major):
            consider(folder, "system")
    if INSTALLED and (found_on_path := shutil.which("pg_dump")) is not None:
        place = Path(found_on_path)
        # Debian's is a script that asks for the newest version, which is among those above.
        if _is_binary(place):
            consider(place.resolve().parent, "system")
    consider(install_dir() / "bin", "bundled")
    return list(found.values())


def require_configured(folder: Path) -> None:
    """Refuses a folder of programs that has none, lest others are taken without a word.

    Args:
        folder: `B44_PG_BIN`.

    Raises:
        DatabaseError: No `pg_dump` runs there.
    """
    if _version(folder / "pg_dump") is None:
        raise DatabaseError(f"B44_PG_BIN={folder} has no pg_dump that runs: name the folder of PostgreSQL's programs")


def choose(installations: Sequence[Clients], server_version: int, *, encrypted: bool) -> Clients:
    """Return the installation for a server: one that surely knows it, else the newest.

    Args:
        installations: As `available` gives them.
        server_version: As in `server_version_num`.
        encrypted: Whether the connection to it is encrypted.

    Raises:
        DatabaseError: None is of its major version or a newer one, or none can encrypt.
    """
    major = server_version // 10_000
    able = [each for each in installations if each.version // 10_000 >= major]
    if not able:
        raise DatabaseError(
            f"the server is PostgreSQL {shown(server_version)}, and no pg_dump on this machine is of that version:"
            f" install postgresql-client-{major}, or set B44_PG_BIN to the folder of its programs"
        )
    if encrypted and not any(each.encrypts for each in able):
        raise DatabaseError(
            f"the connection to the server is encrypted, and no pg_dump for PostgreSQL {major} on this machine can do that"
            f" (the bundled one has no TLS): install postgresql-client-{major}, or set B44_PG_BIN to the folder of its"
            " programs"
        )
    # What was configured goes first where it serves; newer minors of one major version have fewer faults.
    return max(
        (each for each in able if each.encrypts or not encrypted),
        key=lambda each: (each.knows(server_version), each.origin == "configured", each.version),
    )


def newest(installations: Sequence[Clients], server_version: int, *, encrypted: bool) -> Clients:
    """Return the installation that loads a dump into a server: the newest, which reads what any other has written.

    Args:
        installations: As `available` gives them.
        server_version: As in `server_version_num`.
        encrypted: Whether the connection to it is encrypted.

    Raises:
        DatabaseError: As of `choose`.
    """
    choose(installations, server_version, encrypted=encrypted)
    return max((each for each in installations if each.encrypts or not encrypted), key=lambda each: each.version)


def system_folders(major: int) -> list[Path]:
    """Return where the system's packages put the programs of a major version, whether they are there or not."""
    return [Path(form.format(major)) for form in INSTALLED]


@lru_cache
def _version(program: Path) -> int | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) ([0-9]+)\.([0-9]+)", said)
    return None if match is None else int(match[1]) * 10_000 + int(match[2])


@lru_cache
def _encrypts(program: Path) -> bool:
    """Tell whether a program's libpq was built with TLS, which it says before it looks for the server."""
    command = [program, "--dbname=host=/nonexistent sslmode=require", "--no-password"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10, env={"LC_ALL": "C"}).stderr
    return "SSL support is not compiled in" not in said


def _is_binary(path: Path) -> bool:
    with path.resolve().open("rb") as file:
        return file.read(2) != b"#!"
