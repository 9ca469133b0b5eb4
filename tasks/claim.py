"""Discover and plan: what is new becomes this run's own, until the run is over or dead."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from stt_engine.errors import NightscribeError
from stt_engine.types import Seconds
from tasks.compact import tidy
from tasks.discover import Discovery, discover
from tasks.land import repair_derived
from tasks.liveness import Heartbeat, RunIdentity
from tasks.plan import make_plan
from tasks.plan_log import mark_done
from tasks.prepare import PreparedRun
from tasks.storage import Store
from tasks.types import NightPlan

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Claimed:
    """A plan that this run holds. Say before leaving which batches ended in doubt; all, unless it is said."""

    plan: NightPlan
    unsettled: Sequence[str]
    list_s: Seconds
    """What listing SOURCE and looking up in DEST took."""


def new_run_id(started_at: datetime) -> str:
    """Sorts by time, and says when: 20261122T013000Z-4f2a9c."""
    return f"{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def discovery_of(run: PreparedRun, now: datetime) -> Discovery:
    settings = run.settings
    return discover(
        settings.source,
        patterns=settings.pattern,
        modified_since=settings.modified_since,
        modified_before=settings.modified_before,
        newest_first=settings.newest_first,
        settle_s=settings.settle_seconds,
        exclude=settings.dest,
        now=now,
    )


@contextmanager
def claim(run: PreparedRun, store: Store, *, started_at: datetime) -> Iterator[Claimed]:
    """Plan what is new and hold it with a heartbeat; on leaving in peace the plan is marked as done.

    When the block is left by an error the plan is marked as done too, every batch in doubt: what has not landed by then
    is adopted by the next run under the same names, so that no part is written twice.
    """
    identity = RunIdentity.here(new_run_id(started_at))
    with Heartbeat(store, identity):
        tidy(store, identity)
        repair_derived(store)
        began_s = time.perf_counter()
        plan = make_plan(
            store,
            discovery_of(run, started_at),
            run=identity,
            options_hash=run.options_hash,
            force=run.settings.force,
            files_per_batch=run.settings.advanced.files_per_part,
            limit=run.settings.limit,
            now=started_at,
        )
        claimed = Claimed(plan, [batch.batch_id for batch in plan.batches], time.perf_counter() - began_s)
        try:
            yield claimed
        finally:
            try:
                mark_done(store, plan, unsettled=claimed.unsettled)
            except NightscribeError as error:
                # The next run finds out by itself; this run's outcome, or the error that ended it, must not give way.
                log.warning("could not mark the plan of run %s as done: %s", plan.run_id, error)


def plan_only(run: PreparedRun, store: Store, *, now: datetime, limit: int | None = None) -> NightPlan:
    """What a run would take up, without claiming or writing anything. `limit` goes before the one of the settings."""
    return make_plan(
        store,
        discovery_of(run, now),
        run=RunIdentity.here(new_run_id(now)),
        options_hash=run.options_hash,
        force=run.settings.force,
        files_per_batch=run.settings.advanced.files_per_part,
        limit=limit or run.settings.limit,
        now=now,
        claim=False,
    )
