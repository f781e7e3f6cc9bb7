"""Databases with the schema of `sql/` that tests copy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Templates:
    """Names of databases on one server that are only copied from: loaded, and loaded with the whole schema."""

    server_url: str
    loaded: str
    built: str
