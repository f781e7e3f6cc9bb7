"""What a replay has come to: how many records were corrected, which of them are migrated, and why others are refused again.

What belongs here: reading that from the quarantine, before and after. What does not: the replay itself; see `corrections`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from b44_assets.migration.corrections import DIGEST, QUARANTINED_AS_TEXT
from b44_assets.migration.plan import has_plans
from b44_assets.session import Session, scalar

_LISTED = 5
"""How many reasons the line of a replay names."""

# As corrections are told: all that is not text yet is read as text.
_CORRECTED = sql.SQL("""
select q.id, q.entity, {digest}
  from migration.quarantine q
  join migration.plans p on p.entity = q.entity
 cross join lateral ({text}) became (record)
 where q.replayed_at is null and jsonb_typeof(q.record) = 'object' and not q.record ? '_raw'
   and (%(tables)s::text[] is null or q.entity = any (%(tables)s))
   -- Corrected since, or in an earlier replay that has not got to its batch.
   and ({digest} <> q.record_digest or q.generation <> p.generation)
""").format(digest=DIGEST.format(sql.SQL("became.record")), text=QUARANTINED_AS_TEXT)

_REFUSED_AGAIN = """
select c.id, q.entity, q.base44_id, q.reasons
  from unnest(%(ids)s::bigint[], %(tables)s::text[], %(digests)s::text[]) c (id, entity, digest)
  join migration.plans p on p.entity = c.entity
  join migration.quarantine q
    on q.entity = c.entity and q.generation = p.generation and q.replayed_at is null and q.record_digest = c.digest
 order by c.id
"""


@dataclass(frozen=True)
class CorrectedRecord:
    """A record of the quarantine that was corrected and is not migrated yet: its row there, its table, and its digest."""

    id: int
    table: str
    digest: str


@dataclass(frozen=True)
class RefusedAgain:
    """A corrected record that is refused as it is now."""

    table: str
    base44_id: str | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Replay:
    """What became of the records that were corrected.

    Attributes:
        corrected: How many there were.
        migrated: How many of them are in their table now.
        refused: Those that are refused again.
    """

    corrected: int
    migrated: int
    refused: tuple[RefusedAgain, ...]

    @property
    def left(self) -> int:
        """How many are neither: their batch has not come yet, or another version of the record is newer."""
        return self.corrected - self.migrated - len(self.refused)

    def message(self) -> str:
        """What became of them in one line."""
        if not self.corrected:
            return "nothing was corrected in quarantine since the last replay"
        parts = [f"corrected {self.corrected:,}", f"migrated {self.migrated:,}"]
        reasons = Counter(f"{one.table} {', '.join(one.reasons)}" for one in self.refused)
        named = [f"{reason} ({count:,})" if count > 1 else reason for reason, count in reasons.most_common(_LISTED)]
        if len(reasons) > _LISTED:
            named.append("…")
        parts.append(f"refused again {len(self.refused):,}{': ' if named else ''}{'; '.join(named)}")
        if self.left:
            parts.insert(2, f"not used {self.left:,}")
        return ", ".join(parts)

    def facts(self) -> dict[str, Any]:
        """The same as `--json` prints it."""
        return {
            "corrected": self.corrected,
            "migrated": self.migrated,
            "refused": [
                {"table": one.table, "id": one.base44_id, "reasons": list(one.reasons)} for one in self.refused
            ],
        }


def corrected_records(session: Session, tables: Collection[str] | None = None) -> tuple[CorrectedRecord, ...]:
    """The records of the quarantine that a replay would take, of some tables or of all."""
    with session.connection("look at the quarantine") as conn:
        if not has_plans(conn):
            return ()
        wanted = None if tables is None else list(tables)
        rows = conn.execute(_CORRECTED, {"tables": wanted}).fetchall()
    return tuple(CorrectedRecord(*row) for row in rows)


def replay_of(session: Session, corrected: Collection[CorrectedRecord]) -> Replay:
    """What became of records that were corrected before a replay."""
    if not corrected:
        return Replay(0, 0, ())
    ids = [one.id for one in corrected]
    with session.connection("look at the quarantine") as conn:
        refused = {
            row[0]: RefusedAgain(row[1], row[2], tuple(row[3]))
            for row in conn.execute(
                _REFUSED_AGAIN.encode(),
                {"ids": ids, "tables": [one.table for one in corrected], "digests": [one.digest for one in corrected]},
            ).fetchall()
        }
        migrated = scalar(
            conn, "select count(*) from migration.quarantine where id = any (%s) and replayed_at is not null", (ids,)
        )
    return Replay(len(ids), migrated, tuple(refused.values()))
