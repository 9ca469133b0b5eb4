"""Compaction: small parts become few large ones, and of each recording only the newest row stays.

    finish what others left → list the parts → plan → create the record → outputs → deletes → mark done → again

The record's exclusive create is the one decision: see tasks/compact_log.py for what it promises, and ARCHITECTURE.md
for why no row is lost or doubled. No Prefect in here.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from stt_engine.errors import UsageError
from tasks.compact_log import CompactionLog, CompactionRecord, CompactionState, Kind, Merge
from tasks.compact_merge import DERIVED, delete_part, finish
from tasks.compact_plan import CompactionPlan, plan_merges
from tasks.live_parts import with_live_parts
from tasks.liveness import Heartbeat, RunIdentity, beat, is_alive
from tasks.parts import path_in, require_tables
from tasks.plan_log import PlanLog
from tasks.storage import Store, open_store

log = logging.getLogger(__name__)

TARGET_BYTES = 128_000_000
SMALLEST_TARGET_BYTES = 1_000
LARGEST_TARGET_BYTES = 2_000_000_000
"""A part is made in memory, and Arrow's strings end at 2 GiB."""

MERGES_PER_RECORD = 16
"""A compaction that dies leaves so much at most to whoever finishes it."""


@dataclass(frozen=True, slots=True)
class CompactionSummary:
    """The figures of `nightscribe compact --json`, under the same names. Parts and bytes are those of transcripts/."""

    dest: str
    parts_before: int
    parts_after: int
    bytes_before: int
    bytes_after: int
    rows: int
    """Left in the table."""
    rows_superseded: int
    """Dropped: a newer row of the same recording stands."""
    parts_left_alone: int
    """They belong to runs that are at work, or to a newer version."""
    dry_run: bool = False

    @property
    def line(self) -> str:
        if self.parts_after == self.parts_before and not self.rows_superseded:
            return f"nothing to compact: {self.parts_before} parts, {self.rows} rows{self._alone}"
        would = "would become" if self.dry_run else "became"
        return (
            f"{self.parts_before} parts {would} {self.parts_after}; {self.rows} rows stay, "
            f"{self.rows_superseded} superseded ones {'would go' if self.dry_run else 'are gone'}{self._alone}"
        )

    @property
    def _alone(self) -> str:
        return f"; {self.parts_left_alone} parts left alone, of runs at work" if self.parts_left_alone else ""


def compact_tables(dest: str, *, target_bytes: int = TARGET_BYTES, dry_run: bool = False) -> CompactionSummary:
    """`compact` for a DEST by its address. Raises DestinationRefused too where no tables are."""
    store = open_store(dest)
    require_tables(store)
    return compact(store, target_bytes=target_bytes, dry_run=dry_run)


def compact(store: Store, *, target_bytes: int = TARGET_BYTES, dry_run: bool = False) -> CompactionSummary:
    """Compacts until nothing is left to do. Any number of these, and of runs, may be at work at once.

    Raises UsageError for a size that cannot be aimed at, DestinationRefused for a part that cannot be read,
    StorageUnavailable, AccessDenied. After any of them, and after a kill, the tables are right: call it again.
    """
    if not SMALLEST_TARGET_BYTES <= target_bytes <= LARGEST_TARGET_BYTES:
        raise UsageError(
            f"--target-bytes {target_bytes} is not in {SMALLEST_TARGET_BYTES} to {LARGEST_TARGET_BYTES}; "
            f"{TARGET_BYTES} suits most"
        )
    if dry_run:
        plan = _plan(store, target_bytes, datetime.now(UTC))
        would_go = sum(len(merge.inputs) - 1 for merge in plan.merges)
        return _summary(store, plan, plan, parts_after=len(plan.live.transcripts) - would_go, dry_run=True)
    run = upkeep_identity("compact")
    with Heartbeat(store, run):
        finish_all(store)
        first = plan = _plan(store, target_bytes, beat(store, run))
        dropped = 0
        while plan.merges:
            merges = plan.merges[:MERGES_PER_RECORD]
            if swap(store, plan.live.log, merges, run, "compact", plan.nonce):
                dropped += sum(len(found.dropped) for merge in merges for found in merge.inputs)
            else:
                finish_all(store)
            plan = _plan(store, target_bytes, beat(store, run))
        _prune(store, beat(store, run))
    store.sweep()
    return replace(_summary(store, first, plan, parts_after=len(plan.live.transcripts)), rows_superseded=dropped)


def tidy(store: Store, run: RunIdentity) -> None:
    """What a run does before it plans: ends what a dead compaction left, and takes away what zombies made.

    One listing where nothing was ever compacted.
    """
    state = CompactionLog(store).read()
    if not state.entries:
        return
    store_now = beat(store, run)
    for entry in state.unfinished:
        if not is_alive(store, entry.record.run, store_now=store_now):
            log.info("finishing compaction %d, whose process is gone", entry.number)
            finish(store, entry)
    sweep_retired(store, state)


def finish_all(store: Store) -> None:
    """Ends every record that is there, whoever works on it; then takes away what lies under retired names."""
    log_of_compactions = CompactionLog(store)
    for entry in log_of_compactions.read().unfinished:
        finish(store, entry)
    sweep_retired(store, log_of_compactions.read())


def sweep_retired(store: Store, state: CompactionState) -> None:
    retired = {found.path for found in state.retired}
    if not retired:
        return
    for table in ("transcripts", *DERIVED):
        there = {stored.path for stored in store.list(table)}
        for path in retired:
            if path_in(table, path) in there:
                log.warning("%s was made by a process that stood still for long; it is taken away", path)
                delete_part(store, path)


def swap(
    store: Store, seen: CompactionState, merges: tuple[Merge, ...], run: RunIdentity, kind: Kind, nonce: str
) -> bool:
    """Creates the record and carries it out. False when somebody else's came first: look again what is to be done.

    `seen` was read before the parts were listed that the merges name.
    """
    if seen.unfinished:
        return False
    record = CompactionRecord(nonce, run, datetime.now(UTC), kind, merges)
    if not CompactionLog(store).append(seen.highest + 1, record):
        return False
    finish_all(store)
    return True


def upkeep_identity(what: str) -> RunIdentity:
    return RunIdentity.here(f"{what}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}")


def new_nonce() -> str:
    return secrets.token_hex(6)


def _plan(store: Store, target_bytes: int, store_now: datetime) -> CompactionPlan:
    nonce = new_nonce()
    return with_live_parts(
        store, lambda live: plan_merges(store, live, target_bytes=target_bytes, nonce=nonce, store_now=store_now)
    )


def _summary(
    store: Store, before: CompactionPlan, after: CompactionPlan, *, parts_after: int, dry_run: bool = False
) -> CompactionSummary:
    return CompactionSummary(
        dest=store.uri,
        parts_before=len(before.live.transcripts),
        parts_after=parts_after,
        bytes_before=_bytes(before),
        bytes_after=_bytes(after),
        rows=after.rows - (after.superseded if dry_run else 0),
        rows_superseded=after.superseded,
        parts_left_alone=after.held,
        dry_run=dry_run,
    )


def _bytes(plan: CompactionPlan) -> int:
    return sum(part.stored.size_bytes for part in plan.live.transcripts)


def _prune(store: Store, store_now: datetime) -> None:
    needed = {batch for plan in PlanLog(store).read().open_plans for batch in plan.unsettled}
    CompactionLog(store).prune(store_now, needed)
