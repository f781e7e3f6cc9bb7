"""How results become metadata of Dagster's: tables, pictures, links to SQL files, and what is said of any table."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

import dagster as dg

from b44_assets.catalog import Spec
from b44_assets.schema.introspection import ColumnDescription, TableDescription

Metadata: TypeAlias = dict[str, Any]

LISTED = 50
"""How many lines a table of metadata has at most."""
_NAMED_BARS = 10
_OF_BASE44 = re.compile(r" *\(?Base44: [^()]*\)?$")
"""What b44 init ends a comment with that names one field, where a value comes from several."""


def code_reference(spec: Spec) -> dict[str, Any]:
    """A link to the SQL file."""
    return {
        "dagster/code_references": dg.CodeReferencesMetadataValue(
            code_references=[dg.LocalFileCodeReference(file_path=str(spec.path.resolve()), line_number=1)]
        )
    }


def counts_table(counts: Mapping[str, int], name: str) -> dg.TableMetadataValue:
    """Counts by name as a table with two columns, the largest first."""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dg.MetadataValue.table(
        [dg.TableRecord({name: key, "records": count}) for key, count in rows],
        schema=dg.TableSchema([dg.TableColumn(name, "string"), dg.TableColumn("records", "int")]),
    )


def bars(values: Sequence[tuple[str, int]]) -> dg.MarkdownMetadataValue:
    """Numbers by name as a picture: a bar each, drawn as SVG, with the names at the ends and the largest number."""
    width, height, top = 640, 120, 18
    largest = max(max(number for _, number in values), 1)
    step = width / len(values)
    drawn = "".join(
        f'<rect x="{n * step:.1f}" y="{top + height * (1 - number / largest):.1f}" width="{max(step - 1, 0.5):.1f}"'
        f' height="{height * number / largest:.1f}"><title>{escape(name)}: {number:,}</title></rect>'
        for n, (name, number) in enumerate(values)
    )
    text = '<text x="{}" y="{}" font-size="12" font-family="sans-serif" fill="#555" text-anchor="{}">{}</text>'
    names = [text.format(0, 12, "start", f"largest: {largest:,}")]
    if len(values) <= _NAMED_BARS:
        names += [
            text.format(round((n + 0.5) * step), top + height + 14, "middle", escape(name))
            for n, (name, _) in enumerate(values)
        ]
    else:
        names += [
            text.format(0, top + height + 14, "start", escape(values[0][0])),
            text.format(width, top + height + 14, "end", escape(values[-1][0])),
        ]
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + height + 20}" fill="#4f43dd">'
        f"{drawn}{''.join(names)}</svg>"
    )
    encoded = b64encode(picture.encode()).decode()
    return dg.MetadataValue.md(f"![{len(values)} bars](data:image/svg+xml;base64,{encoded})")


def names_table(name: str, value: str, rows: Mapping[str, str]) -> dg.TableMetadataValue:
    """Texts by name as a table with two columns."""
    return table((name, value), list(rows.items()))


def of_table(description: TableDescription, exported: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Columns, rows and size of a table.

    Args:
        description: Of the table.
        exported: By column, the exported fields that its values come from.
    """
    return {
        "dagster/row_count": description.rows,
        "size_bytes": description.size,
        **of_columns(description.name, description.columns, exported),
    }


def of_columns(
    name: str, columns: Sequence[ColumnDescription], exported: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """Columns of a table or view; `exported` as of `of_table`."""
    fields = exported or {}
    return {
        "dagster/table_name": f"public.{name}",
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn(
                    column.name,
                    column.type,
                    description=_described(column.comment, fields.get(column.name, ())),
                    constraints=dg.TableColumnConstraints(nullable=not column.required, unique=column.unique),
                )
                for column in columns
            ]
        ),
    }


def _described(comment: str | None, fields: Sequence[str]) -> str | None:
    """The comment of a column, and the exported fields that it comes from."""
    named = ", ".join(fields)
    # As b44 init ends a comment.
    if not fields or (comment and f" {comment}".removesuffix(")").endswith((f"(Base44: {named}", f" Base44: {named}"))):
        return comment
    said = f"from the exported {named}"
    plain = _OF_BASE44.sub("", comment or "").rstrip().removesuffix(".")
    return f"{plain} ({said})" if plain else said


def named_lists(**lists: tuple[str, ...]) -> dict[str, Any]:
    """Those lists of names that are not empty, each as a table of one column."""
    return {what: table((what,), [(name,) for name in names]) for what, names in lists.items() if names}


def table(columns: tuple[str, ...], rows: list[Any]) -> dg.TableMetadataValue:
    """Rows as a table, no more of them than LISTED."""
    types = {bool: "bool", int: "int"}
    first = rows[0] if rows else ()
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows[:LISTED]],
        schema=dg.TableSchema(
            [
                dg.TableColumn(name, types.get(type(first[n]), "string") if first else "string")
                for n, name in enumerate(columns)
            ]
        ),
    )
