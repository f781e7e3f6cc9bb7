"""Names of tables and columns for entities and fields.

The rules:

- A name is in snake_case, of the letters a to z, digits and `_`: `dueDate` is `due_date`, `AIUsageLog` is `ai_usage_log`. Accents go; a
  name with letters of another script, which would be lost, ends in a digest of it.
- A table's last word is in the plural, unless it already is: `Category` is `categories`, `AppSettings` is `app_settings`.
- A reserved word of PostgreSQL stays as a column's name, and is quoted in SQL (`quoted`): whoever looks for `order` finds it.
- A name longer than PostgreSQL has room for is cut, and ends in a digest of the whole: 63 bytes for a column, `LONGEST_TABLE` for a
  table, of whose name those of partitions, indexes and constraints are made.
- A column with a name that records have besides while they are migrated, or that PostgreSQL has itself, such as `reasons` or `ctid`,
  ends in `_field`; a table with a name such as PostgreSQL's own (`pg_…`), a reserved word (`values`) or a name of the program's own
  (`b44`) begins with `app_`.
- Of several that would have one name, the one that is spelt so has it, then the first by spelling; the others end in `_2`, `_3`, ….
- `created_date` becomes `created_at` and `updated_date` `updated_at`, unless the entity has a field of that name itself.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from pluralizer import Pluralizer

from b44_assets.catalog.references import COLUMNS_OF_MIGRATION, NAMES_OF_PROGRAM
from b44_assets.scaffold.model import Decision, Entity, Field, Overrides

LONGEST: Final = 63
"""Bytes of a name in PostgreSQL."""

LONGEST_TABLE: Final = 48
"""Bytes of a table's name, which leaves room for `_2026_01`, `_default` or `_created_at_idx` behind it."""

RENAMED_BUILT_IN: Final = {"created_date": "created_at", "updated_date": "updated_at"}
"""Built-in fields whose columns are named as is usual in PostgreSQL."""

RESERVED: Final = frozenset(
    re.findall(
        r"\w+",
        """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast char
    character check coalesce collate collation column concurrently constraint create cross current_catalog current_date
    current_role current_schema current_time current_timestamp current_user dec decimal default deferrable desc distinct do
    else end except exists extract false fetch float for foreign freeze from full grant greatest group grouping having ilike
    in initially inner inout int integer intersect interval into is isnull join json json_array json_arrayagg json_exists
    json_object json_objectagg json_query json_scalar json_serialize json_table json_value lateral leading least left like
    limit localtime localtimestamp merge_action national natural nchar none normalize not notnull null nullif numeric offset
    on only or order out outer overlaps overlay placing position precision primary real references returning right row
    select session_user setof similar smallint some substring symmetric system_user table tablesample then time timestamp to
    trailing treat trim true union unique user using values varchar variadic verbose when where window with xmlattributes
    xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """,
    )
)
"""Words that cannot stand anywhere in SQL as a name without quotes: all but the unreserved ones of PostgreSQL 18."""

_SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
_NO_TABLES: Final = RESERVED | NAMES_OF_PROGRAM
_NO_COLUMNS: Final = COLUMNS_OF_MIGRATION | _SYSTEM_COLUMNS | {"base44_id"}
_SIMPLE: Final = re.compile(r"[a-z_][a-z0-9_]*")
_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OTHER: Final = re.compile(r"[^a-z0-9]+")
_NO_LETTERS: Final = re.compile(r"[\W_]+")
_ID: Final = re.compile(r"(?<=[^\W_])(?=Ids?\Z)")
# Letters that have no decomposition into one of a to z and marks.
_LETTERS: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "\u0131": "i"}
)
_DIGEST: Final = 8
# English words without a plural that are used as such, and the adjective of `WhatsNew`.
_UNCOUNTABLE: Final = ("info", "feedback", "knowledge", "hardware", "middleware", "new")


def quoted(name: str) -> str:
    """Return a table's or column's name as SQL has it: in quotes only where it needs them."""
    return name if _SIMPLE.fullmatch(name) and name not in RESERVED else '"' + name.replace('"', '""') + '"'


def shortened(name: str, longest: int = LONGEST) -> str:
    """Return an ASCII name that is not longer than so many bytes: cut, with a digest of the whole at its end."""
    return name if len(name) <= longest else _digested(name[: longest - _DIGEST - 1], name)


def snake_case(name: str) -> str:
    """Return a name in snake_case, of a to z, digits and `_`; the same name again for what is one already."""
    lower = _in_lower_case(name)
    words = _OTHER.sub("_", lower).strip("_")
    if _of_another_script(lower) or not words:
        words = _digested(words or "name", name)
    return f"_{words}" if words[0].isdigit() else words


def comparable(name: str) -> str:
    """Return a name as it is compared with others: in snake_case, but letters of another script stay."""
    if not _of_another_script(_in_lower_case(name)):
        return snake_case(name)
    return _NO_LETTERS.sub("_", _in_lower_case(_ID.sub("_", name))).strip("_")


def _in_lower_case(name: str) -> str:
    """A name without accents, its words apart."""
    plain = unicodedata.normalize("NFKD", name)
    spaced = _WORDS.sub("_", "".join(letter for letter in plain if not unicodedata.combining(letter)))
    return spaced.lower().translate(_LETTERS)


def _of_another_script(lower: str) -> bool:
    return any(letter.isalnum() and not letter.isascii() for letter in lower)


def plural(name: str) -> str:
    """Return a name in snake_case with its last word in the plural, if it is not in it already."""
    head, line, last = name.rpartition("_")
    return head + line + (_pluralizer().plural(last) if last.isalpha() else last)


def singular(name: str) -> str:
    """Return a name in snake_case with its last word in the singular."""
    head, line, last = name.rpartition("_")
    return head + line + (_pluralizer().singular(last) if last.isalpha() else last)


def table_name(entity: str) -> str:
    """Return the name of an entity's table, before others are regarded."""
    name = plural(snake_case(entity))
    return shortened(f"app_{name}" if name.startswith("pg_") or name in _NO_TABLES else name, LONGEST_TABLE)


def column_name(field: str) -> str:
    """Return the name of a field's column, before others are regarded."""
    name = snake_case(field)
    return shortened(f"{name}_field" if name in _NO_COLUMNS else name)


def is_usable(name: str, *, is_table: bool) -> bool:
    """Whether somebody may give a table or a column this name."""
    if not _SIMPLE.fullmatch(name) or len(name) > (LONGEST_TABLE if is_table else LONGEST):
        return False
    return not (name.startswith("pg_") or name in _NO_TABLES) if is_table else name not in _NO_COLUMNS


def name_tables(entities: Iterable[Entity], overrides: Overrides) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """Name the tables of all entities, each otherwise.

    Returns:
        Entity to table, and what was decided where the name is another than one would expect.
    """
    # What the files of one table are named after may not be another table's name.
    kinds = ("constraints", "triggers", "partitions", "policies", "lookup_indexes", "unfit_rows", "circular_references")
    names, decisions = _named(
        [entity.name for entity in entities],
        overrides.tables,
        table_name,
        LONGEST_TABLE,
        subject=lambda entity, _: entity,
        beside=lambda name: {f"{name}_{kind}" for kind in kinds},
    )
    return names, tuple(decisions)


def name_columns(
    entity: Entity, fields: Sequence[Field], overrides: Overrides
) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """Name the columns of all fields of an entity, each otherwise.

    Args:
        entity: Of which.
        fields: Its own ones and the built-in ones.
        overrides: Which may name some.

    Returns:
        Field to column, and what was decided where the name is another than one would expect.
    """
    given = {field: name for (of, field), name in overrides.columns.items() if of == entity.name}
    spelt = [field.name for field in fields]
    own = {column_name(name) for name in spelt if name not in RENAMED_BUILT_IN}
    own |= set(given.values())

    def named(field: str) -> str:
        renamed = RENAMED_BUILT_IN.get(field)
        return column_name(field) if renamed is None or renamed in own else renamed

    names, decisions = _named(spelt, given, named, LONGEST, subject=lambda field, _: f"{entity.name}.{field}")
    for field, renamed in RENAMED_BUILT_IN.items():
        if field in names and names[field] == field and field not in given:
            decisions.append(
                Decision(
                    f"{entity.name}.{field}",
                    "name",
                    f"keeps its name {field}",
                    f"{entity.name} has a field {renamed} of its own",
                )
            )
    return names, tuple(decisions)


def _named(
    spelt: Sequence[str],
    given: Mapping[str, str],
    name_of: Callable[[str], str],
    longest: int,
    *,
    subject: Callable[[str, str], str],
    beside: Callable[[str], Collection[str]] = lambda _: (),
) -> tuple[dict[str, str], list[Decision]]:
    """Name things, those first for which a name is given, then those that are spelt as their name is."""
    names = {one: given[one] for one in spelt if one in given}
    decisions: list[Decision] = []
    for one, name in names.items():
        decisions.append(Decision(subject(one, name), "name", f"is named {name}", "an override says so"))
    taken = set(names.values())
    for name in names.values():
        taken |= set(beside(name))
    wanted = {one: name_of(one) for one in spelt if one not in given}
    holders: dict[str, str] = {name: one for one, name in names.items()}
    for one in sorted(wanted, key=lambda one: (wanted[one] != one, one)):
        name = _free(wanted[one], taken, beside, longest)
        taken |= {name, *beside(name)}
        holders.setdefault(name, one)
        names[one] = name
        if name != wanted[one]:
            holder = holders.get(wanted[one])
            why = (
                f"{holder} would have the same name {wanted[one]}"
                if holder
                else f"{wanted[one]} is the name of a file of another table"
            )
            decisions.append(Decision(subject(one, name), "name", f"is named {name}", why))
        elif (why := _why(one, name)) is not None:
            decisions.append(Decision(subject(one, name), "name", f"is named {name}", why))
    return names, decisions


def _why(spelt: str, name: str) -> str | None:
    """Why a name is not the one that one would expect; None where it is."""
    plain = snake_case(spelt)
    if len(plain) > len(name) and name.endswith(hashlib.sha256(plain.encode()).hexdigest()[:_DIGEST]):
        return f"{plain} is longer than PostgreSQL has room for"
    if name.endswith("_field") and plain + "_field" == name:
        return f"{plain} is a name that each record has besides"
    if name.startswith("app_pg_"):
        return "names that begin with pg_ are PostgreSQL's"
    if (word := plural(plain)) in RESERVED and name == f"app_{word}":
        return f"{word} is a reserved word of SQL"
    if (word := plural(plain)) in NAMES_OF_PROGRAM and name == f"app_{word}":
        return f"{word} is a name of the program's own"
    if plain.endswith(hashlib.sha256(spelt.encode()).hexdigest()[:_DIGEST]):
        return f"{spelt} has letters that are none of a to z"
    return None


def _free(name: str, taken: Collection[str], beside: Callable[[str], Collection[str]], longest: int) -> str:
    candidate, number = name, 2
    while candidate in taken or any(other in taken for other in beside(candidate)):
        ending = f"_{number}"
        candidate, number = shortened(name, longest - len(ending)) + ending, number + 1
    return candidate


def _digested(head: str, whole: str) -> str:
    return f"{head.rstrip('_')}_{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGEST]}"


@functools.cache
def _pluralizer() -> Pluralizer:
    found = Pluralizer()
    for word in _UNCOUNTABLE:
        found.add_uncountable_rule(word)
    return found
