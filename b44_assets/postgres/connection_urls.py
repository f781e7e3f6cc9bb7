"""Connection URLs: read, refused where a password may stand in the wrong place, and shown without one."""

from __future__ import annotations

import re
from urllib.parse import quote

import psycopg
from psycopg import conninfo

from b44_assets.errors import DatabaseError

_MALFORMED = (
    "the database URL cannot be read: it must be of the form postgresql://user:password@host:5432/database, with"
    " @ : / ? # and % in a password written as %40 %3A %2F %3F %23 and %25, and after a ? only what libpq knows"
)


def redact(url: str) -> str:
    """Returns a URL that can be shown: user, host, port, database and `sslmode`; a password is shown as `***`.

    Whatever cannot be read for certain is left out as a whole, since a password may be part of it.
    """
    scheme = url.partition("://")[0]
    try:
        parameters = url_parameters(url)
    except DatabaseError:
        return "<malformed database URL>"
    user = quote(parameters.get("user", ""), safe="")
    password = ":***" if "password" in parameters else ""
    host = parameters.get("host", "")
    socket = host.startswith(("/", "@"))
    query = [f"host={quote(host)}"] if socket else []
    port = parameters.get("port", "")
    if socket:
        query += [f"port={port}"] if port else []
        place = ""
    else:
        ports = port.split(",")
        hosts = [f"[{name}]" if ":" in name else name for name in host.split(",")]
        ports = ports * len(hosts) if len(ports) == 1 else ports
        place = ",".join(f"{name}:{number}" if number else name for name, number in zip(hosts, ports, strict=False))
    if "sslmode" in parameters:
        query.append(f"sslmode={parameters['sslmode']}")
    login = f"{user}{password}@" if user or password else ""
    shown = f"{login}{place}/{quote(parameters.get('dbname', ''), safe='')}"
    prefix = scheme if re.fullmatch(r"postgres(?:ql)?(?:\+[a-z0-9]+)?", scheme) else "postgresql"
    return f"{prefix}://{shown}" + (f"?{'&'.join(query)}" if query else "")


def url_parameters(url: str) -> dict[str, str]:
    """Returns the connection parameters, having refused a URL whose password may stand in the wrong place.

    libpq cuts at the first `@` or `/`. With one of these in a password it would take half of the password for a host, a
    port or a database, and show it in its messages.
    """
    scheme, separator, rest = url.partition("://")
    if separator and re.fullmatch(r"postgres(?:ql)?\+[a-z0-9]+", scheme):
        url = f"postgresql://{rest}"
    try:
        parsed = conninfo.conninfo_to_dict(url)
    except (psycopg.Error, UnicodeError):
        # The message quotes what could not be read, such as a %80, which is no UTF-8.
        raise DatabaseError(_MALFORMED) from None
    parameters = {name: str(value) for name, value in parsed.items() if value is not None}
    hosts = parameters.get("host", "").split(",")
    ports = parameters.get("port", "").split(",")
    if (
        any(not host.startswith(("/", "@")) and re.search(r"[@\s/?#]", host) for host in hosts)
        or any(port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536) for port in ports)
        or (separator and "@" in parameters.get("dbname", "") and "@" in rest.partition("?")[0].partition("/")[2])
        or "\0" in url
    ):
        raise DatabaseError(_MALFORMED)
    return parameters


def server_named(parameters: dict[str, str]) -> str:
    """Names the server of connection parameters in a message: its socket, or host and port."""
    host = parameters.get("host") or parameters.get("hostaddr")
    port = parameters.get("port")
    if not host:
        return "the PostgreSQL server"
    if host.startswith(("/", "@")):
        return f"the socket in {host}"
    return f"the PostgreSQL server {host}:{port}" if port else f"the PostgreSQL server {host}"
