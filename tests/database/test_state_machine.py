"""Random sequences of what can happen to a migration, against a plain model of the rules: they come to the same."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, cast

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from b44_assets.failpoints import armed
from b44_assets.migration.content_parity import content_parity
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.migration.rollback import roll_back_month, roll_back_run
from b44_assets.migration.verification import row_parity
from b44_assets.session import Connection
from tests.helpers.records import object_id, uuid_of
from tests.helpers.target import Target

USERS, POSTS = "users", "posts"
ENTITIES = {USERS: "User", POSTS: "Post"}
ADDRESSES = ["a@example.com", "b@example.com", "c@example.com", None, "nonsense"]
TITLES = ["One", "Two", None]
MONTHS = [1, 2, 3]
PEOPLE, ARTICLES = range(1, 5), range(1, 5)

Exported = dict[str, Any]
Row = dict[str, Any]


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass
class Migrated:
    """A record as it was migrated last: what it said, the row that was written, and by which batches."""

    record: Exported
    row: Row
    inserted: tuple[str, int | None]
    order: int
    updated: tuple[str, int | None] | None = None
    before: Migrated | None = None


@dataclass
class Conflict:
    kind: str
    record: Exported
    accepted: bool = False


@dataclass
class Ledger:
    """One entity's: records as staged, rows, and what became of each, by number."""

    staged: dict[int, Exported] = field(default_factory=dict[int, Exported])
    rows: dict[int, Row] = field(default_factory=dict[int, Row])
    migrated: dict[int, Migrated] = field(default_factory=dict[int, Migrated])
    refused: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    conflicts: dict[int, Conflict] = field(default_factory=dict[int, Conflict])
    retained: dict[int, str] = field(default_factory=dict[int, str])
    corrections: list[tuple[int, Exported, Exported]] = field(default_factory=list[tuple[int, Exported, Exported]])
    edited_in_quarantine: dict[int, tuple[Exported, Exported]] = field(
        default_factory=dict[int, tuple[Exported, Exported]]
    )
    planned: Any = None
    writes: dict[int, str] = field(default_factory=dict[int, str])
    export: int = 0

    def is_edited(self, number: int) -> bool:
        return number in self.rows and self.rows[number] != self.migrated[number].row

    def corrected(self, number: int, record: Exported) -> Exported:
        """What a record is read as: each correction leads on to later ones."""
        for corrected_number, original, corrected in self.corrections:
            if (corrected_number, original) == (number, record):
                record = corrected
        return record


class Model:
    """The rules of later exports and corrections, for users and posts."""

    def __init__(self) -> None:
        self.users, self.posts = Ledger(), Ledger()
        self.undone: set[tuple[str, str, int | None]] = set()
        self.runs: dict[tuple[str, str, int | None], None] = {}
        self.order = 0
        self.exports = 0

    def of(self, entity: str) -> Ledger:
        return self.users if entity == USERS else self.posts

    # What the mapping says of a record.

    def mapped(self, entity: str, record: Exported) -> Row:
        if entity == USERS:
            return {"email": record["email"], "name": record["name"], "updated": record["updated"]}
        return {name: record[name] for name in ("title", "month", "author", "updated")}

    def faults(self, entity: str, record: Exported) -> list[str]:
        if entity == USERS:
            email = record["email"]
            return ["missing_email"] if email is None else ["invalid_email"] if "@" not in email else []
        found = [] if record["author"] in self.users.rows else ["orphan_user"]
        return found + (["missing_title"] if record["title"] is None else [])

    def follows(self, number: int) -> bool:
        """Whether a user's row may give up what it holds: it is the migration's, and follows a sound record."""
        ledger = self.users
        known, record = ledger.migrated.get(number), ledger.staged.get(number)
        return (
            known is not None
            and record is not None
            and not ledger.is_edited(number)
            and not self.faults(USERS, record)
            and (record == known.record or record["updated"] > known.record["updated"])
        )

    def judge(self, entity: str) -> dict[int, list[str]]:
        ledger = self.of(entity)
        reasons = {number: self.faults(entity, record) for number, record in ledger.staged.items()}
        if entity != USERS:
            return reasons
        # A row that stays keeps its address; else the eldest sound one of several records has it.
        holders = {row["email"]: n for n, row in ledger.rows.items() if not self.follows(n)}
        for number in sorted(ledger.staged, key=lambda n: (bool(reasons[n]), n)):
            email = ledger.staged[number]["email"]
            if email is not None and holders.setdefault(email, number) != number:
                reasons[number] = [*reasons[number], "taken"]
        return reasons

    def action(self, entity: str, number: int) -> str:
        ledger, record = self.of(entity), self.of(entity).staged[number]
        known = ledger.migrated.get(number)
        if known is None:
            return "insert"
        gone, edited = number not in ledger.rows, ledger.is_edited(number)
        same = not gone and ledger.rows[number] == self.mapped(entity, record)
        if record == known.record:
            return "unchanged" if gone or same or edited else "update"
        if record["updated"] > known.record["updated"]:
            return "deleted" if gone else "edited" if edited else "update"
        return "unchanged" if gone or same or edited else "not_newer"

    # What happens.

    def read(self, entity: str) -> None:
        """Corrections count from now on, and are read in place of the records that they correct."""
        ledger = self.of(entity)
        for number, (shown, edited) in sorted(ledger.edited_in_quarantine.items()):
            if edited != shown:
                # The last word counts.
                overruled = ((number, shown), (number, edited))
                ledger.corrections = [known for known in ledger.corrections if known[:2] not in overruled]
                ledger.corrections.append((number, shown, edited))
        ledger.edited_in_quarantine.clear()
        for number, record in ledger.staged.items():
            corrected = ledger.corrected(number, record)
            if corrected != record:
                ledger.staged[number] = corrected
                ledger.export += 1

    def export(self, records: dict[str, dict[int, Exported]]) -> None:
        for entity in ENTITIES:
            ledger = self.of(entity)
            self.read(entity)
            ledger.staged = deepcopy(records[entity])
            ledger.export += 1
            self.read(entity)

    def make_plan(self, entity: str) -> None:
        ledger = self.of(entity)
        users = self.users.migrated
        depends = (len(users), max((known.order for known in users.values()), default=0))
        told = (ledger.export, depends if entity == POSTS else None)
        if ledger.planned == told:
            return
        ledger.planned = told
        ledger.refused = {number: why for number, why in self.judge(entity).items() if why}
        actions = {number: self.action(entity, number) for number in ledger.staged if number not in ledger.refused}
        if entity == USERS:
            self.refuse_for_rows_that_stay(actions)
        ledger.writes = {number: action for number, action in actions.items() if action in ("insert", "update")}
        accepted = {number: found for number, found in ledger.conflicts.items() if found.accepted}
        ledger.conflicts = dict(accepted)
        for number, action in actions.items():
            if action in ("edited", "deleted", "not_newer"):
                record = ledger.staged[number]
                known = accepted.get(number)
                ledger.conflicts[number] = Conflict(action, record, known is not None and known.record == record)
        ledger.retained = {
            number: "refused" if number in ledger.refused else "vanished"
            for number in ledger.migrated
            if number not in ledger.staged or number in ledger.refused
        }

    def refuse_for_rows_that_stay(self, actions: dict[int, str]) -> None:
        """A row keeps its address, too, where its record is left out; whoever wants that address is refused."""
        ledger = self.users
        again = True
        while again:
            again = False
            staying = {row["email"]: n for n, row in ledger.rows.items() if actions.get(n) != "update"}
            for number in [n for n, action in actions.items() if action in ("insert", "update")]:
                if staying.get(ledger.staged[number]["email"], number) != number:
                    del actions[number]
                    ledger.refused[number] = ["taken"]
                    again = True

    def write(self, entity: str, run: str) -> None:
        ledger = self.of(entity)
        self.order += 1
        for number, action in ledger.writes.items():
            record = ledger.staged[number]
            row = self.mapped(entity, record)
            batch = (run, record["month"] if entity == POSTS else None)
            self.runs[entity, *batch] = None
            if action == "insert":
                ledger.migrated[number] = Migrated(record, row, batch, self.order)
            else:
                known = ledger.migrated[number]
                ledger.migrated[number] = Migrated(record, row, known.inserted, known.order, batch, known)
            ledger.rows[number] = dict(row)
        ledger.writes = {}

    def load(self, run: str) -> None:
        for entity in ENTITIES:
            self.read(entity)
            self.make_plan(entity)
            self.write(entity, run)

    def undo(self, batches: set[tuple[str, str, int | None]]) -> None:
        batches = batches - self.undone
        touched = [entity for entity in (POSTS, USERS) if any(batch[0] == entity for batch in batches)]
        for entity in touched:
            ledger = self.of(entity)
            for number, known in list(ledger.migrated.items()):
                used = entity == USERS and any(row["author"] == number for row in self.posts.rows.values())
                if (entity, *known.inserted) in batches and not ledger.is_edited(number) and not used:
                    ledger.rows.pop(number, None)
                    del ledger.migrated[number]
                    ledger.conflicts.pop(number, None)
                    continue
                # The newest of several first.
                while known.updated and (entity, *known.updated) in batches and number in ledger.rows:
                    if ledger.is_edited(number):
                        break
                    assert known.before is not None
                    ledger.migrated[number] = known = known.before
                    ledger.rows[number] = dict(known.row)
        self.undone |= batches
        for entity in reversed(touched):
            self.of(entity).planned = None
            self.make_plan(entity)

    def delete(self, entity: str, number: int) -> None:
        del self.of(entity).rows[number]
        if entity == USERS:
            for post, row in list(self.posts.rows.items()):
                if row["author"] == number:
                    del self.posts.rows[post]


# -- the database ------------------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """What ends a run at once."""


def _date(day: int) -> str:
    return f"2024-06-{day:02}T00:00:00"


def _as_exported(entity: str, number: int, record: Exported) -> dict[str, object]:
    both = {"id": object_id(number), "updated_date": _date(record["updated"])}
    if entity == USERS:
        return {
            **both,
            "email": record["email"],
            "username": f"user{number}",
            "full_name": record["name"],
            "created_date": f"2024-01-{number:02}T00:00:00",
        }
    return {
        **both,
        "title": record["title"],
        "content": "Long enough.",
        "user_id": object_id(record["author"]),
        "created_date": f"2024-{record['month']:02}-{number:02}T00:00:00",
    }


_FAULTS = st.none() | st.tuples(st.sampled_from(["ended", "lost", "interrupted"]), st.integers(1, 40))
_USERS = st.dictionaries(
    st.sampled_from(PEOPLE),
    st.fixed_dictionaries(
        {"email": st.sampled_from(ADDRESSES), "name": st.sampled_from(["N", "M"]), "updated": st.integers(1, 4)}
    ),
)
_POSTS = st.dictionaries(
    st.sampled_from(ARTICLES),
    st.fixed_dictionaries(
        {
            "title": st.sampled_from(TITLES),
            "month": st.sampled_from(MONTHS),
            "author": st.sampled_from(PEOPLE),
            "updated": st.integers(1, 4),
        }
    ),
)


class Migrations(RuleBasedStateMachine):
    """Both, side by side."""

    target: Target

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.number = 0
        self.stack = ExitStack()
        self.target.reset()
        self.session = self.stack.enter_context(self.target.session.keeping())
        self.loaded = True

    def teardown(self) -> None:
        self.stack.close()

    # Doing it.

    def run_id(self) -> str:
        self.number += 1
        return f"run-{self.number:08}"

    def disturbed(self, fault: tuple[str, int] | None, work: Any) -> None:
        """Does it while something happens at one hit; what was interrupted is done again."""
        hits = 0

        def happen(name: str, conn: Connection) -> None:
            nonlocal hits
            hits += 1
            if fault is None or hits != fault[1]:
                return
            if fault[0] == "ended" and not conn.closed:
                self.target.run("select pg_terminate_backend(%s, 10000)", conn.info.backend_pid)
            elif fault[0] == "lost" and name.endswith("after commit"):
                raise psycopg.OperationalError("lost")
            elif fault[0] == "interrupted":
                raise Interrupted

        with armed(happen):
            try:
                work()
            except Interrupted:
                work()

    def load_both(self, run: str, size: int, *, staging: bool = False) -> None:
        session = replace(self.session, run_id=run, pace=replace(self.session.pace, batch_size=size))
        for entity in ENTITIES:
            mapping = session.catalog.mappings[entity]
            if staging:
                stage_export(session, mapping, self.target.export)
            load_table(session, mapping)

    @initialize(users=_USERS, posts=_POSTS)
    def first_export(self, users: dict[int, Exported], posts: dict[int, Exported]) -> None:
        self.migrate(users, posts, None, 3)

    @rule(users=_USERS, posts=_POSTS, fault=_FAULTS, size=st.integers(1, 3))
    def newer_export(self, users: dict[int, Exported], posts: dict[int, Exported], fault: Any, size: int) -> None:
        # Most records stay as they were.
        kept = {entity: self.model.of(entity).staged for entity in ENTITIES}
        self.migrate({**kept[USERS], **users}, {**kept[POSTS], **posts}, fault, size)

    @rule(fault=_FAULTS, lost=st.sets(st.sampled_from(PEOPLE), max_size=1), posts=st.sets(st.sampled_from(ARTICLES)))
    def export_with_less(self, fault: Any, lost: set[int], posts: set[int]) -> None:
        users = {n: record for n, record in self.model.users.staged.items() if n not in lost}
        self.migrate(users, {n: record for n, record in self.model.posts.staged.items() if n not in posts}, fault, 3)

    def migrate(self, users: dict[int, Exported], posts: dict[int, Exported], fault: Any, size: int) -> None:
        records = {USERS: users, POSTS: posts}
        for entity, name in ENTITIES.items():
            path = self.target.export / f"{name}.jsonl"
            lines = [json.dumps(_as_exported(entity, n, record)) for n, record in sorted(records[entity].items())]
            # Another file each time, though it may hold the same records.
            path.write_text("".join(line + "\n" for line in lines) + "\n" * self.number)
        run = self.run_id()
        self.model.export(records)
        self.model.load(run)
        self.disturbed(fault, lambda: self.load_both(run, size, staging=True))

    @rule(entity=st.sampled_from([USERS, POSTS]), data=st.data(), fault=_FAULTS)
    def correct_and_load(self, entity: str, data: st.DataObject, fault: Any) -> None:
        ledger = self.model.of(entity)
        if not ledger.refused:
            return
        number = data.draw(st.sampled_from(sorted(ledger.refused)))
        changes: Exported = (
            {"email": data.draw(st.sampled_from(ADDRESSES[:3]))} if entity == USERS else {"title": "Corrected"}
        )
        shown = ledger.corrected(number, ledger.staged[number])
        ledger.edited_in_quarantine[number] = shown, {**shown, **changes}
        self.target.run(
            "update migration.quarantine set record = record || %s::jsonb"
            " where entity = %s and base44_id = %s and replayed_at is null",
            json.dumps(changes),
            entity,
            object_id(number),
        )
        run = self.run_id()
        self.model.load(run)
        self.disturbed(fault, lambda: self.load_both(run, 3))

    @precondition(lambda self: bool(cast(Migrations, self).model.runs))
    @rule(data=st.data(), fault=_FAULTS, by_month=st.booleans())
    def take_back_and_load(self, data: st.DataObject, fault: Any, by_month: bool) -> None:
        batches = self.model.runs
        if by_month:
            month = data.draw(st.sampled_from(MONTHS))
            self.model.undo({batch for batch in batches if batch[0] == POSTS and batch[2] == month})
            self.disturbed(fault, lambda: roll_back_month(self.session, date(2024, month, 1)))
        else:
            run = data.draw(st.sampled_from(sorted({batch[1] for batch in batches})))
            self.model.undo({batch for batch in batches if batch[1] == run})
            self.disturbed(fault, lambda: roll_back_run(self.session, run))
        self.same()
        again = self.run_id()
        self.model.load(again)
        self.load_both(again, 3)

    @rule(entity=st.sampled_from([USERS, POSTS]), data=st.data())
    def edit_in_the_target(self, entity: str, data: st.DataObject) -> None:
        rows = self.model.of(entity).rows
        if not rows:
            return
        number = data.draw(st.sampled_from(sorted(rows)))
        self.number += 1
        text = f"Edited {self.number}"
        rows[number].update({"name" if entity == USERS else "title": text, "updated": None})
        column = "display_name" if entity == USERS else "title"
        self.target.run(
            f"update {entity} set {column} = %s, updated_at = now() where id = %s", text, uuid_of(object_id(number))
        )

    @rule(entity=st.sampled_from([USERS, POSTS]), data=st.data())
    def delete_in_the_target(self, entity: str, data: st.DataObject) -> None:
        rows = self.model.of(entity).rows
        if not rows:
            return
        number = data.draw(st.sampled_from(sorted(rows)))
        self.model.delete(entity, number)
        self.target.run(f"delete from {entity} where id = %s", uuid_of(object_id(number)))

    @rule()
    def accept_conflicts(self) -> None:
        for entity in ENTITIES:
            for conflict in self.model.of(entity).conflicts.values():
                conflict.accepted = True
        self.target.run("update migration.conflicts set accepted_at = now()")

    # Comparing.

    @invariant()
    def same(self) -> None:
        target, model = self.target, self.model
        numbers = {object_id(number): number for number in (*PEOPLE, *ARTICLES)}
        ids = {uuid_of(base44_id): number for base44_id, number in numbers.items()}
        rows: dict[str, dict[int, Row]] = {
            USERS: {
                ids[row["id"]]: {"email": row["email"], "name": row["display_name"], "updated": row["updated_at"]}
                for row in target.table(USERS)
            },
            POSTS: {
                ids[row["id"]]: {
                    "title": row["title"],
                    "month": row["created_at"].month,
                    "author": ids[str(row["user_id"])],
                    "updated": row["updated_at"],
                }
                for row in target.table(POSTS)
            },
        }
        for entity in ENTITIES:
            ledger = model.of(entity)
            for row in rows[entity].values():
                moment = row["updated"]
                row["updated"] = moment.day if (moment.year, moment.month, moment.hour) == (2024, 6, 0) else None
            assert rows[entity] == ledger.rows, entity
            told = "select base44_id, {} from migration.{} where entity = '{}'"
            refused = target.all(told.format("reasons", "quarantine", entity) + " and replayed_at is null")
            # Each stands there once; what was corrected and is sound, until its batch has migrated it.
            assert sorted(
                (numbers[k], [_plainly(why) for why in v]) for k, v in refused if numbers[k] not in ledger.writes
            ) == sorted(ledger.refused.items()), entity
            found = {numbers[k]: v for k, v in target.all(told.format("reason", "retained", entity))}
            assert found == ledger.retained, entity
            conflicts = target.all(
                "select base44_id, kind, accepted_at is not null from migration.conflicts where entity = %s", entity
            )
            assert {numbers[k]: (kind, accepted) for k, kind, accepted in conflicts} == {
                number: (conflict.kind, conflict.accepted) for number, conflict in ledger.conflicts.items()
            }, entity
            assert target.one("select unaccounted from migration.accounting where entity = %s", entity) == 0
            pending = target.one("select pending from migration.accounting where entity = %s", entity)
            assert pending == len(ledger.writes), entity
            if pending or ledger.migrated.keys() - ledger.rows.keys():
                continue
            mapping = self.session.catalog.mappings[entity]
            parity, content = row_parity(self.session, mapping), content_parity(self.session, mapping)
            assert parity is not None and parity.passed, parity
            assert content is not None and content.passed, content


def _plainly(reason: str) -> str:
    return "taken" if reason in ("duplicate_email", "refused:users_email_key") else reason


def _try(target: Target, **options: Any) -> None:
    target.run("alter table posts add constraint t1 foreign key (user_id) references users (id) on delete cascade")
    machine = type("OnTarget", (Migrations,), {"target": target})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.data_too_large],
                database=None,
                print_blob=False,
                **options,
            ),
        )
    finally:
        target.run("alter table posts drop constraint t1")


def test_random_sequences_come_to_what_the_rules_say(target_18: Target) -> None:
    phases = [Phase.generate]
    _try(target_18, max_examples=5, stateful_step_count=12, derandomize=True, phases=phases)


@pytest.mark.slow
def test_many_random_sequences_come_to_what_the_rules_say(target_18: Target) -> None:
    """As many as B44_TEST_EXAMPLES says, 300 by default."""
    _try(target_18, max_examples=int(os.environ.get("B44_TEST_EXAMPLES", "300")), stateful_step_count=20)
