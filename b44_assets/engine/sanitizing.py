# pyright: reportAttributeAccessIssue=false
"""HTML made safe.

A pattern cannot do this safely; nh3 parses as a browser does. Text without `<` and `&` cannot be HTML and is left alone,
byte for byte (contract, section 5).
"""

from __future__ import annotations

from typing import Any

import nh3
import pyarrow as pa
import pyarrow.compute as pc


def sanitize(text: str) -> str:
    """The text with only harmless HTML left; unchanged where it has no `<` and no `&`."""
    return nh3.clean(text) if "<" in text or "&" in text else text


def sanitized_column(column: Any) -> Any:
    """For each text of an Arrow column its safe form where that differs, else null.

    Args:
        column: A string array of n values.

    Returns:
        A string array of n values.
    """
    suspects = pc.fill_null(pc.or_(pc.match_substring(column, "<"), pc.match_substring(column, "&")), False)
    if not pc.any(suspects).as_py():
        return pa.nulls(len(column), pa.string())
    originals: list[str] = pc.filter(column, suspects).to_pylist()
    clean = nh3.Cleaner().clean  # the same as nh3.clean, set up once: half the time
    cleaned = [safe if (safe := clean(text)) != text else None for text in originals]
    return pc.replace_with_mask(pa.nulls(len(column), pa.string()), suspects, pa.array(cleaned, pa.string()))
