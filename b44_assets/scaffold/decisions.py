"""`DECISIONS.md`: what was inferred of an app, with the evidence, and what its owner has to decide."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from b44_assets.scaffold.model import PARTITIONED_FROM, App, Audience, Decision, Rule
from b44_assets.wording import plural

_REFERENCES = (
    "Columns that name records of other tables, by a foreign key. Without one are those that name a user by e-mail address (the column"
    " is text), arrays of ids, and those that name rows of a partitioned table."
)
_DELETING = (
    " A row that a foreign key refers to cannot be deleted before the rows that refer to it. Base44 deletes it, and leaves references"
    " that name nothing."
)
_CONSTRAINTS = "Whatever the schemas declare of a field's values (required, enum, limits, pattern) is a constraint."
_TOPICS = (
    (
        "reference",
        "References",
        _REFERENCES
        + " One that is NOT VALID holds for what is written from now on; values that name no record are kept, and listed by a"
        " check." + _DELETING,
    ),
    ("entity", "Entities", ""),
    ("field", "Fields", ""),
    (
        "type",
        "Types",
        "From the schemas, confirmed on the export where there is one; never guessed from the values alone. A value that does not fit"
        " is null, and kept in `migration.repairs`.",
    ),
    (
        "name",
        "Names",
        "Tables are named as their entities, in snake_case and in the plural, columns as their fields, without accents; `created_date`"
        " and `updated_date` are `created_at` and `updated_at`. These are named otherwise:",
    ),
    (
        "secret",
        "Secrets",
        "Fields, and members of objects, that look like secrets: no preview, report or page shows their values.",
    ),
    (
        "constraint",
        "Constraints",
        _CONSTRAINTS
        + " One that the data does not honour is NOT VALID: it holds for what is written from now on, and a check lists the"
        " records that break it. PostgreSQL checks all of a row that is changed: nothing in such a row can be changed until it is"
        " mended, or the constraint is taken out. What is required is a CHECK, since before PostgreSQL 18 no column can be NOT NULL"
        " for new rows alone.",
    ),
    (
        "index",
        "Indexes",
        "Besides these, every key, every reference, what the schemas declare, what a rule compares with the caller, `slug` and the time"
        " of creation have one.",
    ),
    ("trigger", "Triggers", ""),
    ("partition", "Partitions", ""),
)
_STRICT: Mapping[str, str] = {
    "reference": _REFERENCES
    + " As `b44.toml` says, a record whose foreign key names no record is refused. Only listed by a check are"
    " members of arrays of ids that name none, and such foreign keys of tables that refer to themselves or to each other in a circle,"
    " since their targets are loaded later." + _DELETING,
    "type": "From the schemas; a record with a value that does not fit is refused, as `b44.toml` says.",
    "constraint": _CONSTRAINTS + " As `b44.toml` says, a record that breaks one is refused.",
}
"""What is said of some topics instead where records are refused."""
_CLOSED = (
    "None of these rules is in force in the database: only the tables' owner and the role that migrates may read or write anything."
    " After `b44 init . --open` and `b44 migrate`, `b44_readwrite` may read and write all rows, and `b44_readonly` may read them."
)
_OPENED = (
    "None of these rules is in force in the database. As `b44.toml` says (`open = true`), members of `b44_readwrite` may read and write"
    " all rows, and members of `b44_readonly` may read them."
)
_REASON = (
    "Measured at that size (460 MB of rows, 70 MB of indexes): to build all indexes anew takes 2 s, and longer the larger the table is;"
    " those of one month take 0.2 s. A row is found in 0.2 ms, in a table of months in 0.5 ms. For smaller tables months cost more than"
    " they give: no foreign key can point at such a table, and no field can be unique in all months."
)
_RULES = "Rules: who may do what in Base44"
_NAMED = re.compile(r"(?:\| |, )(?P<fence>`+) ?(?P<name>.*?) ?(?P=fence)(?=, `| \|)")
PAGE: Final = "DECISIONS.md"
"""The page's name in an app folder."""
_OPERATIONS = ("create", "read", "update", "delete")


def open_entities(app: App) -> tuple[str, ...]:
    """Entities of which everyone may do something in Base44, in the order of the rules."""
    return tuple(dict.fromkeys(rule.entity for rule in app.rules if rule.access is Audience.EVERYONE))


def open_entities_of(page: str) -> frozenset[str]:
    """Entities of which a page of decisions says that everyone may do something."""
    found: set[str] = set()
    of_entities = False
    for text in page.splitlines():
        if not text.startswith("| "):
            of_entities = False
        elif text.startswith("| entity | create |"):
            of_entities = True
        elif of_entities and "| **everyone** |" in text:
            at = 0
            while match := _NAMED.match(text, at):
                found.add(match["name"].replace("\\|", "|"))
                at = match.end()
    return frozenset(found)


def reference_count(app: App) -> int:
    """Columns that refer to other tables."""
    return sum(column.reference is not None for table in app.tables for column in table.columns)


def decisions_page(app: App, calls: str = "") -> str:
    """The page as Markdown.

    Args:
        app: What was read and inferred.
        calls: A section on what the app's own source calls; empty where none was given.
    """
    references = reference_count(app)
    known = [topic for topic, _, _ in _TOPICS]
    topics = [*_TOPICS, *((topic, topic.capitalize(), "") for topic in _others(app.decisions, known))]
    # What the owner should look at comes first.
    found = {
        topic: sorted((one for one in app.decisions if one.topic == topic), key=lambda one: not one.doubtful)
        for topic, _, _ in topics
    }
    parts = [
        f"# Decisions: {_plain(app.name)}",
        f"`b44 init` made {len(app.tables)} {plural(len(app.tables), 'table')} and {references}"
        f" {plural(references, 'reference')}. Each inference stands here with its evidence."
        " To have something otherwise, say so in `b44.toml`, and run `b44 init .` again: it keeps what you have edited by hand.",
        _summary(app, [(title, found[topic]) for topic, title, _ in topics]),
        _rules(app),
    ]
    for topic, title, introduction in topics:
        if topic == "partition":
            introduction = _partitions(app)
        if found[topic] or (topic == "partition" and introduction):
            said = _STRICT.get(topic, introduction) if app.strict else introduction
            parts += [f"## {title}", said, _decided(found[topic]) if found[topic] else ""]
    if app.left_out:
        parts += [
            "## Left out",
            "No table, as `b44.toml` says; their records are kept in `migration.unmapped`.",
            _items(_code(name) for name in app.left_out),
        ]
    if app.notices:
        parts += [
            "## Notices",
            "What was found while reading.",
            _items(
                (f"{_code(one.path.name)}: " if one.path is not None else "") + _plain(one.text) for one in app.notices
            ),
        ]
    return "\n\n".join(part for part in [*parts, calls] if part) + "\n"


def _summary(app: App, topics: Iterable[tuple[str, Sequence[Decision]]]) -> str:
    """What there is to look at, with links."""
    lines: list[str] = []
    unread = {rule.entity for rule in app.rules if rule.access is Audience.UNKNOWN}
    found = [(len(open_entities(app)), "open to everyone in Base44"), (len(unread), "with rules that cannot be read")]
    if said := [f"{many} {plural(many, 'entity', 'entities')} {what}" for many, what in found if many]:
        lines.append(f"{_link(_RULES, 'Rules')}: {', '.join(said)}")
    for title, decisions in topics:
        if doubtful := sum(one.doubtful for one in decisions):
            of_all = f" of {len(decisions)}, first in the table" if doubtful < len(decisions) else ""
            lines.append(f"{_link(title, title)}: {doubtful}{of_all}")
    if app.notices:
        lines.append(f"{_link('Notices', 'Notices')}: {len(app.notices)}")
    looked = any(table.records is not None for table in app.tables)
    return "\n\n".join(
        [
            *([] if looked else ["No export was looked at: whether the data honours any of this is not known."]),
            *(["To look at:", _items(lines)] if lines else []),
        ]
    )


def _partitions(app: App) -> str:
    """From which size on a table is partitioned, and why; empty where no export was looked at."""
    sizes = {table.name: table.records for table in app.tables if table.records is not None}
    if not sizes:
        return ""
    name, most = max(sizes.items(), key=lambda one: one[1])
    return (
        f"From {PARTITIONED_FROM:,} records on a table is partitioned by month; the largest, {_code(name)}, has {most:,}. {_REASON}"
        ' `first = "2023-01"` in `b44.toml` partitions a smaller table as well, and `first = false` keeps a larger one whole.'
    )


def _link(heading: str, text: str) -> str:
    return f"[{text}](#{re.sub(r'[^a-z0-9 ]', '', heading.lower()).replace(' ', '-')})"


def _decided(decisions: Iterable[Decision]) -> str:
    """A table of decisions, with one row for all that say the same; counts are the same of one table at the most."""
    subjects: dict[tuple[str, str, str], list[str]] = {}
    for one in decisions:
        of = one.subject.partition(".")[0] if any(sign.isdigit() for sign in one.evidence) else ""
        subjects.setdefault((one.text, one.evidence, of), []).append(_code(one.subject))
    rows = ((", ".join(dict.fromkeys(names)), text, evidence) for (text, evidence, _), names in subjects.items())
    return _table(("what", "decided", "evidence"), rows)


def _rules(app: App) -> str:
    """Who may do what in Base44: what is open to everyone first."""
    rules = [rule for rule in app.rules if not rule.field]
    if not app.rules:
        return ""
    parts = [
        f"## {_RULES}",
        _OPENED if app.opened else _CLOSED,
    ]
    opened = open_entities(app)
    if opened:
        many = len(opened) > 1
        parts.append(
            f"**Open to everyone, visitors who are not signed in included: {len(opened)}"
            f" {'entities' if many else 'entity'}.** Whoever knew the app's address could do this, which may be more than was meant."
        )
        parts.append(_rule_table(app, opened))
    # Of one of which no rule can be read there is nothing to say here.
    read = {rule.entity for rule in rules if rule.access is not Audience.UNKNOWN}
    closed = tuple(dict.fromkeys(rule.entity for rule in rules if rule.entity in read and rule.entity not in opened))
    if closed:
        parts += ["### Restricted" if opened else "", _rule_table(app, closed)]
    unknown = [rule for rule in app.rules if rule.access is Audience.UNKNOWN]
    if unknown:
        parts += [
            "### Rules that cannot be read",
            "Their form, or their key, is none that Base44 documents: whether Base44 follows them, or lets everyone in, is not known."
            " The database opens nothing because of them.",
            _table(("rule", "of"), _by_rule(unknown)),
        ]
    fields = [rule for rule in app.rules if rule.field]
    if fields:
        rows = [(_code(f"{rule.entity}.{rule.field}"), rule.operation, _who(rule)) for rule in fields]
        parts += ["### Of fields", _table(("field", "what", "who"), rows)]
    return "\n\n".join(part for part in parts if part)


def _rule_table(app: App, entities: Sequence[str]) -> str:
    rules = {(rule.entity, rule.operation): rule for rule in app.rules if not rule.field}
    others = _others_of(operation for entity, operation in rules if entity in entities)
    operations = [*_OPERATIONS, *others]
    named: dict[tuple[str, ...], list[str]] = {}
    for entity in entities:
        who = (_who(rules[entity, operation]) if (entity, operation) in rules else "" for operation in operations)
        named.setdefault(tuple(who), []).append(_code(entity))
    return _table(("entity", *operations), ((", ".join(names), *who) for who, names in named.items()))


def _others_of(operations: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(operation for operation in operations if operation not in _OPERATIONS))


def _who(rule: Rule) -> str:
    if rule.access is Audience.EVERYONE:
        return "**everyone**"
    if rule.access is Audience.UNKNOWN:
        return "cannot be read"
    return rule.who or rule.access.value


def _by_rule(rules: Iterable[Rule]) -> Iterator[tuple[str, str]]:
    """What rules say, each with the entities and operations that have it."""
    having: dict[str, dict[str, list[str]]] = {}
    for rule in rules:
        of = f"{rule.entity}.{rule.field}" if rule.field else rule.entity
        source = (
            rule.source if isinstance(rule.source, str) else json.dumps(rule.source, ensure_ascii=False, default=str)
        )
        having.setdefault(_code(source), {}).setdefault(of, []).append(rule.operation)
    for said, by_entity in having.items():
        yield said, ", ".join(f"{_code(of)} ({', '.join(operations)})" for of, operations in by_entity.items())


def _others(decisions: Iterable[Decision], known: Sequence[str]) -> list[str]:
    # Rules have a section of their own.
    return list(dict.fromkeys(one.topic for one in decisions if one.topic not in (*known, "rule")))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _items(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """A text in one line: names come from files of somebody's."""
    return " ".join(text.split())


def _code(text: str) -> str:
    """A text as code, whatever backticks it has."""
    text = _plain(text)
    fence = "`"
    while fence in text:
        fence += "`"
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}" if text else ""
