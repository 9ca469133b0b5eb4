"""Planning a run: of the files it wants, those that nobody has landed and nobody else is working on.

    beat → read the plan log → read the ledger → what is left → create the next entry of the log
                                                      ↑                     │ taken
                                                      └─ drop what the entries in between claim

The order matters. A plan that is done when the log is read has its rows in the ledger that is read after it. One that
is not done yet counts as a claim, even if it lands everything a moment later. The files of one that appears in between
are dropped, done or not. So nothing is missed, and what was dropped in vain the next run finds.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stt_engine.errors import StorageUnavailable
from stt_engine.types import Seconds
from tasks.batches import FILES_PER_BATCH, Member, form_batches
from tasks.discover import Discovery
from tasks.ledger import Ledger, read_ledger
from tasks.liveness import DEAD_AFTER_S, RunIdentity, beat, is_alive
from tasks.plan_log import Adoption, LogState, OpenPlan, PlanEntry, PlanLog
from tasks.storage import Store
from tasks.types import AudioFile, LandingBatch, NightPlan

PLANNING_MAY_TAKE_S: Seconds = 24 * 3600.0
"""Far below `tasks.plan_log.KEEP_DONE`: entries are not pruned under a planner that has yet to see them."""


@dataclass(slots=True)
class _Claims:
    """What the open plans say about the files under one options_hash."""

    held: set[str] = field(default_factory=set)
    """file_ids that a live run is working on."""
    sticky: dict[str, tuple[int, LandingBatch]] = field(default_factory=dict)
    """file_id -> the entry and batch of a dead run under whose name alone it may be landed."""


@dataclass(slots=True)
class _Wanted:
    discovered: int = 0
    already_done: int = 0
    claimed_elsewhere: int = 0
    fresh: list[Member] = field(default_factory=list)
    adopted: dict[str, tuple[int, LandingBatch]] = field(default_factory=dict)
    """batch_id -> the entry it comes from, and the batch."""


def make_plan(
    store: Store,
    files: Iterable[AudioFile],
    *,
    run: RunIdentity,
    options_hash: str,
    force: bool = False,
    files_per_batch: int = FILES_PER_BATCH,
    limit: int | None = None,
    now: datetime | None = None,
    claim: bool = True,
    dead_after_s: Seconds = DEAD_AFTER_S,
) -> NightPlan:
    """Claims for `run` what is left of `files` (a `Discovery`, or any iterable) and returns it, in landing batches.

    - `force`: files that have a row are done again; never those that a live run is working on.
    - `limit`: at most so many files that are left to do are taken up (adopted batches come whole, and count by those of
      their files that are wanted); the listing is read no further than needed.
    - `claim=False` plans without writing anything (a dry run). `now` is for the entry and the parts' ingest_date.

    Enter a `Heartbeat` before, and call `mark_done` when everything of the plan has ended. An empty plan needs none.

    Raises DestinationRefused for a part or plan that cannot be read, StorageUnavailable, AccessDenied, and what the
    listing raises.
    """
    started = time.monotonic()
    moment = now or datetime.now(UTC)
    store_now = beat(store, run) if claim else moment
    log = PlanLog(store)
    state = log.read()
    ledger = read_ledger(store, options_hash)
    claims = _claims(store, log, state, ledger, run, store_now, dead_after_s, settle=claim)
    wanted = _choose(files, claims, ledger, force=force, limit=limit)
    plan_id, batches = _append(log, state.highest + 1, wanted, run, ledger, files_per_batch, moment, started, claim)
    deferred = files.deferred if isinstance(files, Discovery) else 0
    if claim:
        log.prune(store_now)
    return NightPlan(
        plan_id=plan_id,
        run_id=run.run_id,
        batches=batches,
        discovered=wanted.discovered + deferred,
        already_done=wanted.already_done,
        claimed_elsewhere=wanted.claimed_elsewhere,
        deferred=deferred,
    )


def _claims(
    store: Store,
    log: PlanLog,
    state: LogState,
    ledger: Ledger,
    run: RunIdentity,
    store_now: datetime,
    dead_after_s: Seconds,
    *,
    settle: bool,
) -> _Claims:
    claims = _Claims()
    alive: dict[str, bool] = {run.run_id: False}  # an earlier attempt of this very run: taken up again
    for plan in state.open_plans:
        owner = plan.entry.run
        if not plan.done and owner.run_id not in alive:
            alive[owner.run_id] = is_alive(store, owner, store_now=store_now, dead_after_s=dead_after_s)
        if not plan.done and alive[owner.run_id]:
            if plan.entry.options_hash == ledger.options_hash:
                claims.held.update(file.file_id for batch in plan.entry.batches for file in batch.files)
        elif plan.unsettled <= ledger.landed_batches:
            if settle:
                log.mark_done(plan.number)  # whoever it belongs to: nothing of it can be created any more
        elif plan.entry.options_hash == ledger.options_hash:
            _stick(claims, plan, ledger)
    return claims


def _stick(claims: _Claims, plan: OpenPlan, ledger: Ledger) -> None:
    for batch in plan.entry.batches:
        if batch.batch_id in plan.unsettled and batch.batch_id not in ledger.landed_batches:
            claims.sticky.update((file.file_id, (plan.number, batch)) for file in batch.files)


def _choose(files: Iterable[AudioFile], claims: _Claims, ledger: Ledger, *, force: bool, limit: int | None) -> _Wanted:
    wanted = _Wanted()
    seen: set[str] = set()
    for file in files:
        if limit is not None and len(seen) >= limit:
            break
        wanted.discovered += 1
        if not force and ledger.has(file):
            wanted.already_done += 1
            continue
        name = file.file_id
        if name in seen:  # a listing that changed between two pages may show a file twice
            wanted.discovered -= 1
            continue
        if name in claims.held:
            wanted.claimed_elsewhere += 1
            continue
        seen.add(name)
        if name in claims.sticky:
            number, batch = claims.sticky[name]
            wanted.adopted[batch.batch_id] = (number, batch)
        else:
            wanted.fresh.append((file, ledger.generation(file)))
    return wanted


def _append(
    log: PlanLog,
    number: int,
    wanted: _Wanted,
    run: RunIdentity,
    ledger: Ledger,
    files_per_batch: int,
    now: datetime,
    started: float,
    claim: bool,
) -> tuple[str, tuple[LandingBatch, ...]]:
    """Creates the entry under the first free number from `number` on; drops what others have claimed meanwhile."""
    nonce = uuid.uuid4().hex[:12]
    options_hash = ledger.options_hash
    while True:
        adopted = tuple(batch for _, batch in wanted.adopted.values())
        fresh = form_batches(
            wanted.fresh,
            options_hash=options_hash,
            ingest_date=now.date(),
            files_per_batch=files_per_batch,
            taken=ledger.landed_batches,
        )
        batches = adopted + fresh
        if not batches or not claim:
            return "", batches
        plan_id = f"{number:08d}-{nonce}"
        if time.monotonic() - started > PLANNING_MAY_TAKE_S:
            raise StorageUnavailable(
                f"planning run {run.run_id} took more than a day; nothing was claimed, run it again"
            )
        if log.append(number, PlanEntry(plan_id, run, now, options_hash, batches, _adoptions(wanted))):
            return plan_id, batches
        for taken, entry in list(log.entries_from(number)):
            if entry.options_hash == options_hash:
                _drop(wanted, entry)
            number = taken + 1


def _adoptions(wanted: _Wanted) -> tuple[Adoption, ...]:
    by_number: dict[int, list[str]] = {}
    for name, (number, _) in wanted.adopted.items():
        by_number.setdefault(number, []).append(name)
    return tuple(Adoption(number, tuple(sorted(names))) for number, names in sorted(by_number.items()))


def _drop(wanted: _Wanted, entry: PlanEntry) -> None:
    taken = {file.file_id for batch in entry.batches for file in batch.files}
    before = len(wanted.fresh)
    wanted.fresh = [member for member in wanted.fresh if member[0].file_id not in taken]
    wanted.claimed_elsewhere += before - len(wanted.fresh)
    for name, (_, batch) in list(wanted.adopted.items()):
        if any(file.file_id in taken for file in batch.files):
            wanted.claimed_elsewhere += len(batch.files)
            del wanted.adopted[name]
