"""A night without Prefect and without a model, for files by the thousand: CPU workers, landing and books are the real
ones, with their deadlines and their limit on memory. Whoever hears the chunks says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stt_engine.errors import RetryableError, SourceChanged
from stt_engine.split import SplitOptions
from stt_engine.types import ChunkTranscript, Seconds, TranscribeOptions
from tasks.compact import tidy
from tasks.cpu_work import split_order
from tasks.discover import discover
from tasks.land import land_batch, repair_derived
from tasks.liveness import Heartbeat, RunIdentity
from tasks.night import Night
from tasks.night_terms import NightOptions, NightOutcome
from tasks.orders import LandOrder, SplitOrder, SplitOutcome, TranscribedChunks, TranscribeOrder
from tasks.plan import make_plan
from tasks.plan_log import mark_done
from tasks.runners.pool import WorkerPool
from tasks.runners.seat import PoolLimits
from tasks.runners.worker import WorkerSetup
from tasks.spool import read_chunks, spool_for
from tasks.storage import Store
from tasks.types import LandedPart, RunStamp

OPTIONS = "0123456789abcdef"
RETRIES = 1
MEMORY_BYTES = 1 << 30


@dataclass(slots=True)
class Answer:
    """What `tasks.night` waits for."""

    future: Future[Any]
    tries: list[int] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        return len(self.tries)

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self.future.add_done_callback(fn)

    def result(self) -> Any:
        return self.future.result()


class SplitCrew:
    """One thread for each worker, and one for landing."""

    def __init__(self, pool: WorkerPool, store: Store, run_id: str, n_workers: int) -> None:
        self._pool, self._store, self._run_id = pool, store, run_id
        self._splitting = ThreadPoolExecutor(n_workers)
        self._landing = ThreadPoolExecutor(1)

    def split(self, order: SplitOrder) -> Answer:
        return self._submit(self._splitting, lambda: self._split(order), retried=order.alone)

    def transcribe(self, order: TranscribeOrder) -> Answer:
        return self._submit(self._landing, lambda: _hear_nothing(order), retried=order.alone)

    def land(self, order: LandOrder) -> Answer:
        return self._submit(self._landing, lambda: self._land(order), retried=True)

    def close(self) -> None:
        self._splitting.shutdown()
        self._landing.shutdown()

    def _split(self, order: SplitOrder) -> tuple[SplitOutcome, ...]:
        return self._pool.call(split_order, (order,), deadline_s=order.deadline_s, what=order.name)

    def _land(self, order: LandOrder) -> LandedPart:
        stamp = RunStamp(self._run_id, "none", order.backend, order.compute_type, OPTIONS, "0")
        return land_batch(self._store, order.batch, order.results, stamp)

    def _submit(self, threads: ThreadPoolExecutor, work: Callable[[], Any], *, retried: bool) -> Answer:
        tries: list[int] = []

        def tried() -> Any:
            while True:
                tries.append(1)
                try:
                    return work()
                except RetryableError as error:
                    if not retried or isinstance(error, SourceChanged) or len(tries) > RETRIES:
                        raise

        return Answer(threads.submit(tried), tries)


def _hear_nothing(order: TranscribeOrder) -> TranscribedChunks:
    heard = tuple(ChunkTranscript(audio.chunk, "en", 0.9, ()) for audio in read_chunks(order.chunks))
    return TranscribedChunks(heard, "none", "none", 0, {"transcribe": 0.01})


@dataclass(frozen=True)
class SplitNight:
    outcome: NightOutcome
    workers_started: int


@contextmanager
def _crew(store: Store, run_id: str, n_workers: int) -> Iterator[tuple[SplitCrew, WorkerPool]]:
    limits = PoolLimits(memory_bytes=MEMORY_BYTES, recycle_above_bytes=MEMORY_BYTES // 2)
    pool = WorkerPool(
        "cpu", ("cpu",) * n_workers, setup=WorkerSetup("tasks.cpu_work:get_ready"), threads=1, limits=limits
    )
    crew = SplitCrew(pool, store, run_id, n_workers)
    try:
        yield crew, pool
    finally:
        crew.close()
        pool.kill()


def split_night(
    source: Path, store: Store, spool: Path, *, deadline_s: Seconds, files_alone_up_to: int = 500, n_workers: int = 1
) -> SplitNight:
    """Everything below `source` that has no row yet, planned, split, landed."""
    run = RunIdentity.here("splitting")
    with Heartbeat(store, run), spool_for(run.run_id, str(spool)) as spool_uri:
        tidy(store, run)
        repair_derived(store)
        plan = make_plan(store, discover(str(source)), run=run, options_hash=OPTIONS, now=datetime.now(UTC))
        options = NightOptions(
            split=SplitOptions(),
            transcribe=TranscribeOptions(language="en"),
            model="none",
            backend="none",
            spool_uri=spool_uri,
            cpu_workers=n_workers,
            gpu_workers=1,
            files_alone_up_to=files_alone_up_to,
            split_deadline_s=deadline_s,
        )
        with _crew(store, run.run_id, n_workers) as (crew, pool):
            outcome = Night(plan, crew, options).run()
            mark_done(store, plan, unsettled=outcome.unsettled)
            return SplitNight(outcome, len(pool.loads))
