"""`DECISIONS.md`: what was inferred of an app, with the evidence, and what its owner has to decide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from b44_assets.scaffold.model import App, Audience, Decision, Rule
from b44_assets.wording import plural

_TOPICS = (
    ("reference", "References", "Columns that name records of other tables. What names none is listed by a check, and kept as it is."),
    ("entity", "Entities", ""),
    ("field", "Fields", ""),
    ("type", "Types", "From the schemas, confirmed on the export where there is one; never guessed from the values alone."),
    ("name", "Names", "Where a name is not just the entity's or the field's in lower case."),
    ("secret", "Secrets", "Fields that look like secrets: no preview, report or page shows their values."),
    ("constraint", "Constraints", "Those that the data does not honour are NOT VALID: they hold for what is written from now on."),
    ("index", "Indexes", ""),
    ("partition", "Partitions", ""),
)  # fmt: skip
_NAMED = re.compile(r"\| (?P<fence>`+) ?(?P<name>.*?) ?(?P=fence) \|")
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
        elif of_entities and "| **everyone** |" in text and (match := _NAMED.match(text)):
            found.add(match["name"].replace("\\|", "|"))
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
    parts = [
        f"# Decisions: {_plain(app.name)}",
        f"`b44 init` made {len(app.tables)} {plural(len(app.tables), 'table')} and {references}"
        f" {plural(references, 'reference')}. Each inference stands here with its evidence."
        " What you want otherwise goes into `b44.toml`; then run `b44 init .` again, which keeps what you have edited by hand.",
        _rules(app),
    ]
    known = [topic for topic, _, _ in _TOPICS]
    topics = [*_TOPICS, *((topic, topic.capitalize(), "") for topic in _others(app.decisions, known))]
    for topic, title, introduction in topics:
        found = [decision for decision in app.decisions if decision.topic == topic]
        if not found:
            continue
        rows = [(_code(one.subject), one.text, one.evidence) for one in found]
        parts += [f"## {title}", introduction, _table(("what", "decided", "evidence"), rows)]
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


def _rules(app: App) -> str:
    """Who may do what in Base44: what is open to everyone first."""
    rules = [rule for rule in app.rules if not rule.field]
    if not app.rules:
        return ""
    parts = [
        "## Rules: who may do what in Base44",
        "None of these is in force in the database: only its owner and who migrates may do anything, until you grant it.",
    ]
    opened = open_entities(app)
    if opened:
        many = len(opened) > 1
        parts.append(
            f"**Open to everyone, visitors who are not signed in included: {len(opened)}"
            f" {'entities' if many else 'entity'}.** Whoever knew the app's address could do this, which may be more than was meant."
        )
        parts.append(_rule_table(app, opened))
    closed = tuple(dict.fromkeys(rule.entity for rule in rules if rule.entity not in opened))
    if closed:
        parts += ["### Restricted" if opened else "", _rule_table(app, closed)]
    unknown = [rule for rule in app.rules if rule.access is Audience.UNKNOWN]
    if unknown:
        parts += [
            "### Not understood",
            "Rules in no form that Base44 documents. Nothing is opened by them.",
            _table(
                ("entity", "what", "rule"),
                [(_code(rule.entity), _what(rule), _code(str(rule.source))) for rule in unknown],
            ),
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
    rows = [
        (
            _code(entity),
            *(_who(rules[entity, operation]) if (entity, operation) in rules else "" for operation in operations),
        )
        for entity in entities
    ]
    return _table(("entity", *operations), rows)


def _others_of(operations: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(operation for operation in operations if operation not in _OPERATIONS))


def _who(rule: Rule) -> str:
    if rule.access is Audience.EVERYONE:
        return "**everyone**"
    return rule.who or rule.access.value


def _what(rule: Rule) -> str:
    return f"{rule.operation} of {rule.field}" if rule.field else rule.operation


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
