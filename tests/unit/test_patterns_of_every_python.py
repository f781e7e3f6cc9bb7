"""What the oldest Pythons make of our regular expressions."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from re import _constants, _parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

import pytest

import b44_assets.catalog
import b44_assets.exports

MODULES = [
    module.name
    for package in (b44_assets.catalog, b44_assets.exports)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]


def possessive_bodies(parsed: Any, possessive: bool = False) -> Iterator[Any]:
    """The operations that stand anywhere within a possessive group."""
    for operation, argument in parsed:
        if possessive:
            yield operation
        inner = possessive or operation is _constants.POSSESSIVE_REPEAT
        for part in argument if isinstance(argument, tuple | list) else [argument]:
            for one in part if isinstance(part, list) else [part]:
                if isinstance(one, _parser.SubPattern):
                    yield from possessive_bodies(one, inner)


@pytest.mark.parametrize("module", MODULES)
def test_no_group_of_alternatives_is_possessive(module: str) -> None:
    # Python 3.11.0 to 3.11.4 match something else; Debian 12 has 3.11.2.
    for name, pattern in vars(importlib.import_module(module)).items():
        if isinstance(pattern, re.Pattern):
            found = set(possessive_bodies(_parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)))
            assert _constants.BRANCH not in found, name
