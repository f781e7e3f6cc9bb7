"""The DDL and the queries of a file, taken apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from b44_assets.catalog.headers import line_of, names_of
from b44_assets.catalog.model import (
    ConstraintDefinition,
    IndexDefinition,
    Kind,
    PolicyDefinition,
    Query,
    RoleDefinition,
    RowCheck,
    RowSecurity,
    Spec,
    Statement,
    TriggerDefinition,
    ViewDefinition,
    ViewOfSchema,
    ViewSchema,
)
from b44_assets.errors import CatalogError

_INDEX = re.compile(
    r"create\s+(?P<unique>unique\s+)?index\s+(?:if\s+not\s+exists\s+)?(?P<name>[a-z_]\w*)\s+on\s+(?P<table>[a-z_]\w*)"
    r"\s*(?P<rest>(?:using\b|\().*)",
    re.IGNORECASE | re.DOTALL,
)
_INDEX_STATISTICS = re.compile(
    r"alter\s+index\s+(?P<name>[a-z_]\w*)\s+alter\s+column\s+(?P<column>\d+)\s+set\s+statistics\s+(?P<target>\d+)",
    re.IGNORECASE,
)
_CONSTRAINT = re.compile(
    r"alter\s+table\s+(?P<table>[a-z_]\w*)\s+add\s+constraint\s+(?P<name>[a-z_]\w*)\s+"
    r"(?P<rest>(?P<form>check|foreign|exclude|unique)\b.*)",
    re.IGNORECASE | re.DOTALL,
)
_UNLESS_THERE = re.compile(
    r"do\s+(?P<quote>\$\w*\$)\s*begin\s+if\s+not\s+exists\s*\((?P<condition>[^;]*?)\)\s*then\s+"
    r"(?P<statement>alter\s+table\b.*?)\s*;\s*end\s+if\s*;\s*end\s*;?\s*(?P=quote)",
    re.IGNORECASE | re.DOTALL,
)
_LITERAL = re.compile(r"'([^']*)'")
FOREIGN_KEY = re.compile(
    r"foreign\s+key\s*\((?P<columns>[\w\s,\"]+)\)\s*references\s+(?P<table>\w+)\s*\((?P<keys>[\w\s,\"]+)\)",
    re.IGNORECASE,
)
_TRIGGER = re.compile(
    r"create\s+or\s+replace\s+trigger\s+(?P<name>[a-z_]\w*)\s+(?:before|after|instead\s+of)\s.*?\son\s+(?P<table>[a-z_]\w*)\s.*",
    re.IGNORECASE | re.DOTALL,
)
_FOLLOWED = re.compile(r"select\s+b44.follow_truncate_triggers\s*\(\s*'(?P<table>[a-z_]\w*)'\s*\)", re.IGNORECASE)
"""Gives the partitions of a table its triggers for TRUNCATE; the engine does so for every table."""
_VIEW = re.compile(
    r"create\s+(?:materialized\s+view\s+(?:if\s+not\s+exists\s+)?(?P<materialized>[a-z_]\w*)"
    r"|(?:or\s+replace\s+)?view\s+(?P<plain>[a-z_]\w*)(?P<head>\s*(?:\([^()]*\)\s*)?(?:with\s*\([^()]*\))?))"
    r"\s*\bas\s+(?P<query>(?:select|with)\b.*)",
    re.IGNORECASE | re.DOTALL,
)
_VIEW_OF_SCHEMA = re.compile(
    r"create\s+or\s+replace\s+view\s+(?P<schema>[a-z_]\w*)\.(?P<name>[a-z_]\w*|\"(?:[^\"]|\"\")+\")"
    r"(?P<head>\s*(?:with\s*\([^()]*\))?)\s*\bas\s+(?P<query>(?:select|with)\b.*)",
    re.IGNORECASE | re.DOTALL,
)
_SCHEMA = re.compile(r"create\s+schema\s+if\s+not\s+exists\s+(?P<name>[a-z_]\w*)", re.IGNORECASE)
_COMMENT_IN_SCHEMA = re.compile(
    r"comment\s+on\s+(?:schema\s+(?P<schema>[a-z_]\w*)\s|(?:view|column)\s+(?P<of>[a-z_]\w*)\.).*",
    re.IGNORECASE | re.DOTALL,
)
_ROW_SECURITY = re.compile(
    r"alter\s+table\s+(?P<table>[a-z_]\w*)\s+(?P<switch>enable|force)\s+row\s+level\s+security", re.IGNORECASE
)
_POLICY_DROPPED = re.compile(
    r"drop\s+policy\s+if\s+exists\s+(?P<name>[a-z_]\w*)\s+on\s+(?P<table>[a-z_]\w*)", re.IGNORECASE
)
_POLICY = re.compile(
    r"create\s+policy\s+(?P<name>[a-z_]\w*)\s+on\s+(?P<table>[a-z_]\w*)\b.*", re.IGNORECASE | re.DOTALL
)
_POLICY_COMMENT = re.compile(
    r"comment\s+on\s+policy\s+(?P<name>[a-z_]\w*)\s+on\s+(?P<table>[a-z_]\w*)\s+is\b.*", re.IGNORECASE | re.DOTALL
)
_ROLE = re.compile(
    r"do\s+(?P<quote>\$\w*\$)\s*begin\s+if\s+not\s+exists\s*\((?P<condition>[^;]*?)\)\s*then\s+"
    r"create\s+role\s+(?P<name>[a-z_]\w*)\b[^;]*;\s*end\s+if\s*;\s*end\s*;?\s*(?P=quote)",
    re.IGNORECASE | re.DOTALL,
)
_OF_ROLE = re.compile(
    r"(?:grant|revoke|comment\s+on\s+role|do|alter\s+(?:role|default\s+privileges|[a-z\s]+?\s\S+(?:\s*\([^()]*\))?\s+owner\s+to))\b.*",
    re.IGNORECASE | re.DOTALL,
)
_SCHEMAS_OF_OTHERS = frozenset({"public", "b44", "migration", "base44", "pg_catalog", "information_schema"})
_PASSWORD = re.compile(r"\bpassword\s+[^\s;]", re.IGNORECASE)
_COMMENT = re.compile(r"comment\s+on\s", re.IGNORECASE)
_SELECT = re.compile(r"(?:select|with)\b", re.IGNORECASE)


def fault_at(spec: Spec, statement: Statement, reason: str) -> CatalogError:
    """A complaint about a statement, with its line."""
    return CatalogError(f"{spec.path}:{statement.line}: {reason}")


def table_of(spec: Spec) -> str:
    """The table or view that a file is about, from its header `on`.

    Raises:
        CatalogError: The header is missing.
    """
    if (table := spec.options.get("on")) is None:
        raise CatalogError(f"{spec.path}:1: {spec.kind} need a header 'on'")
    return table


def _check_table(spec: Spec, statement: Statement, table: str, expected: str) -> None:
    if table != expected:
        raise fault_at(spec, statement, f"is about {table}, the file about {expected}")


def _indexes(spec: Spec, statements: Sequence[Statement], table: str) -> tuple[IndexDefinition, ...]:
    found: dict[str, tuple[re.Match[str], Statement]] = {}
    statistics: dict[str, dict[int, int]] = {}
    for statement in statements:
        if match := _INDEX.fullmatch(statement.text):
            _check_table(spec, statement, match["table"], table)
            if match["name"] in found:
                raise fault_at(spec, statement, f"{match['name']} stands there twice")
            found[match["name"]] = match, statement
        elif match := _INDEX_STATISTICS.fullmatch(statement.text):
            if match["name"] not in found:
                raise fault_at(spec, statement, f"{match['name']} is not created above")
            statistics.setdefault(match["name"], {})[int(match["column"])] = int(match["target"])
        else:
            raise fault_at(
                spec,
                statement,
                "expected 'create [unique] index [if not exists] <name> on <table> …'"
                " or 'alter index <name> alter column <number> set statistics <target>'",
            )
    return tuple(
        IndexDefinition(
            name,
            table,
            match["unique"] is not None,
            match["rest"],
            MappingProxyType(statistics.get(name, {})),
            statement,
        )
        for name, (match, statement) in found.items()
    )


def index_definitions(spec: Spec) -> tuple[IndexDefinition, ...]:
    """The indexes of a file.

    Raises:
        CatalogError: A statement is of another form; names the line.
    """
    return _indexes(spec, spec.statements, table_of(spec))


def constraint_definitions(spec: Spec) -> tuple[ConstraintDefinition, ...]:
    """The constraints of a file.

    Raises:
        CatalogError: A statement is of another form; names the line.
    """
    table = table_of(spec)
    found: dict[str, ConstraintDefinition] = {}
    for statement in spec.statements:
        conditional = _UNLESS_THERE.fullmatch(statement.text)
        match = _CONSTRAINT.fullmatch(conditional["statement"] if conditional else statement.text)
        if match is None:
            raise fault_at(
                spec,
                statement,
                "expected 'alter table <table> add constraint <name> check|foreign key|exclude|unique …',"
                " alone or within 'do $$ begin if not exists (select from pg_constraint …) then …; end if; end $$'",
            )
        _check_table(spec, statement, match["table"], table)
        if conditional and (
            "pg_constraint" not in conditional["condition"]
            or sorted(_LITERAL.findall(conditional["condition"])) != sorted((table, match["name"]))
        ):
            # Another constraint's name there, and psql would never add this one.
            raise fault_at(spec, statement, f"the condition must be that {match['name']} of {table} is not there")
        if match["name"] in found:
            raise fault_at(spec, statement, f"{match['name']} stands there twice")
        if re.search(r"\bnot\s+valid\s*$", match["rest"], re.IGNORECASE):
            raise fault_at(spec, statement, "NOT VALID is a matter of how it is added, not of the constraint")
        if match["form"].lower() == "foreign" and FOREIGN_KEY.match(match["rest"]) is None:
            raise fault_at(spec, statement, "expected 'foreign key (<columns>) references <table> (<columns>)'")
        found[match["name"]] = ConstraintDefinition(
            match["name"], table, match["form"].lower(), match["rest"], statement
        )
    return tuple(found.values())


def trigger_definitions(spec: Spec) -> tuple[TriggerDefinition, ...]:
    """The triggers of a file.

    Raises:
        CatalogError: A statement is of another form; names the line.
    """
    table = table_of(spec)
    found: dict[str, TriggerDefinition] = {}
    for statement in spec.statements:
        if followed := _FOLLOWED.fullmatch(statement.text):
            _check_table(spec, statement, followed["table"], table)
            continue
        match = _TRIGGER.fullmatch(statement.text)
        if match is None:
            raise fault_at(spec, statement, "expected 'create or replace trigger <name> … on <table> …'")
        _check_table(spec, statement, match["table"], table)
        if match["name"] in found:
            raise fault_at(spec, statement, f"{match['name']} stands there twice")
        found[match["name"]] = TriggerDefinition(match["name"], table, statement)
    return tuple(found.values())


def view_definition(spec: Spec) -> ViewDefinition:
    """The view of a file, plain or materialized.

    Raises:
        CatalogError: A statement is of another form; names the line.
    """
    first = spec.statements[0]
    match = _VIEW.fullmatch(first.text)
    if match is None:
        raise fault_at(
            spec,
            first,
            "expected 'create materialized view [if not exists] <name> as <query>'"
            " or 'create or replace view <name> [with (<options>)] as <query>'",
        )
    materialized = match["materialized"] is not None
    name = match["materialized"] or match["plain"]
    if name != spec.name:
        raise fault_at(spec, first, f"the view is {name}, the file {spec.name}")
    comments = tuple(statement for statement in spec.statements[1:] if _COMMENT.match(statement.text))
    others = [statement for statement in spec.statements[1:] if statement not in comments]
    if not materialized and others:
        raise fault_at(spec, others[0], "expected 'comment on …': a file of a view makes that view alone")
    indexes = _indexes(spec, others, spec.name)
    if materialized and not any(index.unique for index in indexes):
        raise fault_at(spec, first, "a materialized view needs a unique index: REFRESH … CONCURRENTLY works by it")
    head = " ".join((match["head"] or "").split())
    return ViewDefinition(spec.name, materialized, head, match["query"], indexes, comments, first)


def view_schema(spec: Spec) -> ViewSchema:
    """The schema of a file, with its views.

    Raises:
        CatalogError: A statement is of another form, or about another schema; names the line.
    """
    first = spec.statements[0]
    created = _SCHEMA.fullmatch(first.text)
    if created is None or created["name"] != spec.name or spec.name in _SCHEMAS_OF_OTHERS:
        raise fault_at(
            spec, first, "expected 'create schema if not exists <the file's name>' first, of no other schema's name"
        )
    views: dict[str, ViewOfSchema] = {}
    comments: list[Statement] = []
    for statement in spec.statements[1:]:
        if match := _VIEW_OF_SCHEMA.fullmatch(statement.text):
            quoted = match["name"].startswith('"')
            name = match["name"][1:-1].replace('""', '"') if quoted else match["name"].lower()
            if name in views:
                raise fault_at(spec, statement, f"{name} stands there twice")
            views[name] = ViewOfSchema(name, " ".join((match["head"] or "").split()), match["query"], statement)
            schema = match["schema"]
        elif match := _COMMENT_IN_SCHEMA.fullmatch(statement.text):
            comments.append(statement)
            schema = match["schema"] or match["of"]
        else:
            raise fault_at(
                spec,
                statement,
                "expected 'create or replace view <schema>.<name> [with (<options>)] as <query>' or 'comment on …'",
            )
        if schema != spec.name:
            raise fault_at(spec, statement, f"is about schema {schema}, the file about {spec.name}")
    return ViewSchema(spec.name, first, tuple(views.values()), tuple(comments))


def row_security(spec: Spec) -> RowSecurity:
    """The row security of a file.

    Raises:
        CatalogError: A statement is of another form, or policies are made that nothing switches on; names the line.
    """
    table = table_of(spec)
    switches: list[Statement] = []
    forced = False
    found: dict[str, PolicyDefinition] = {}
    comments: list[Statement] = []
    for statement in spec.statements:
        text = statement.text
        match = _ROW_SECURITY.fullmatch(text) or _POLICY_DROPPED.fullmatch(text)
        match = match or _POLICY_COMMENT.fullmatch(text) or _POLICY.fullmatch(text)
        if match is None:
            raise fault_at(
                spec,
                statement,
                "expected 'alter table <table> enable|force row level security', 'drop policy if exists <name> on <table>',"
                " 'create policy <name> on <table> …' or 'comment on policy …'",
            )
        _check_table(spec, statement, match["table"], table)
        if match.re is _ROW_SECURITY:
            switches.append(statement)
            forced |= match["switch"].lower() == "force"
        elif match.re is _POLICY_COMMENT:
            comments.append(statement)
        elif match.re is _POLICY:
            if match["name"] in found:
                raise fault_at(spec, statement, f"{match['name']} stands there twice")
            found[match["name"]] = PolicyDefinition(match["name"], table, statement)
        elif match["name"] in found:
            raise fault_at(spec, statement, f"{match['name']} is dropped after it was made")
    if not any(re.search(r"\benable\b", one.text, re.IGNORECASE) for one in switches):
        raise CatalogError(
            f"{spec.path}:1: policies are in force only after 'alter table {table} enable row level security'"
        )
    return RowSecurity(table, forced, tuple(switches), tuple(found.values()), tuple(comments))


def role_definition(spec: Spec) -> RoleDefinition:
    """The role of a file.

    Raises:
        CatalogError: A statement is of another form, or has a password in it; names the line.
    """
    first = spec.statements[0]
    match = _ROLE.fullmatch(first.text)
    if match is None:
        raise fault_at(
            spec,
            first,
            f"expected 'do $$ begin if not exists (select from pg_roles where rolname = '{spec.name}') then"
            f" create role {spec.name} nologin; end if; end $$' first",
        )
    if match["name"] != spec.name:
        raise fault_at(spec, first, f"the role is {match['name']}, the file {spec.name}")
    if _LITERAL.findall(match["condition"]) != [spec.name]:
        raise fault_at(spec, first, f"the condition must be that {spec.name} is not there")
    for statement in spec.statements:
        if _PASSWORD.search(statement.text) and re.search(r"\brole\b", statement.text, re.IGNORECASE):
            raise fault_at(spec, statement, "a password has no place in a file: set it with psql's \\password")
    for statement in spec.statements[1:]:
        if _OF_ROLE.fullmatch(statement.text) is None:
            raise fault_at(
                spec,
                statement,
                "expected grant, revoke, alter role, alter default privileges, alter … owner to, comment on role, or do",
            )
    return RoleDefinition(spec.name, first, spec.statements[1:])


def row_check(spec: Spec) -> RowCheck:
    """The check of a file.

    Raises:
        CatalogError: It is not one SELECT, or a header is missing or says something else than it may.
    """
    table = table_of(spec)
    if len(spec.statements) != 1 or not _SELECT.match(spec.statements[0].text):
        raise CatalogError(f"{spec.path}:1: a check is one SELECT of the rows that break the rule")
    severity = spec.options.get("severity", "error")
    if severity not in ("error", "warn"):
        line = line_of(spec.path, "severity")
        raise CatalogError(f"{spec.path}:{line}: expected 'severity: error' or 'severity: warn', not '{severity}'")
    return RowCheck(spec, table, severity == "warn")


def query_definition(spec: Spec) -> Query:
    """The query of a file.

    Raises:
        CatalogError: It is not one SELECT, or a literal that a header names is not in it.
    """
    if len(spec.statements) != 1 or not _SELECT.match(spec.statements[0].text):
        raise CatalogError(f"{spec.path}:1: a query is one SELECT")
    for key in ("since", "until"):
        if key in spec.options and f"'{spec.options[key]}'" not in spec.statements[0].text:
            raise CatalogError(f"{spec.path}:1: '{key}' must be a literal of the query: '{spec.options[key]}'")
    return Query(
        spec,
        names_of(spec.options.get("uses", "")),
        spec.options.get("prunes"),
        spec.options.get("since"),
        spec.options.get("until"),
    )


FORMS: Mapping[Kind, Callable[[Spec], object]] = {
    Kind.PARTITION: table_of,
    Kind.INDEX: index_definitions,
    Kind.CONSTRAINT: constraint_definitions,
    Kind.TRIGGER: trigger_definitions,
    Kind.POLICY: row_security,
    Kind.VIEW: view_definition,
    Kind.VIEW_SCHEMA: view_schema,
    Kind.ROLE: role_definition,
    Kind.CHECK: row_check,
    Kind.QUERY: query_definition,
}
"""What reads the statements of a kind, and complains about another form."""
