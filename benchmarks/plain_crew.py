"""The crew of a night without Prefect: the same worker processes, orders handed to them by threads and nothing else.

What Prefect costs is the difference to `tasks.crew`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stt_engine import __version__
from tasks import cpu_work, gpu_work
from tasks.land import land_batch
from tasks.orders import LandOrder, SplitOrder, TranscribeOrder
from tasks.prepare import PreparedRun
from tasks.runners.pool import NO_LIMITS, WorkerPool, log_here
from tasks.runners.worker import WorkerSetup
from tasks.runners.worker_process import WorkerLoad
from tasks.storage import open_store
from tasks.types import NightPlan, RunStamp


@dataclass(frozen=True, slots=True)
class _Handed:
    future: Future[Any]
    attempts: int = 1

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self.future.add_done_callback(fn)

    def result(self) -> Any:
        return self.future.result()


class PlainCrew:
    def __init__(self, run: PreparedRun, plan: NightPlan, pools: dict[str, WorkerPool]) -> None:
        self._run, self._plan, self._pools = run, plan, pools
        slots = {"gpu": 2 * run.gpu_workers + 2, "cpu": 2 * run.cpu_workers + 2, "flow": 8}
        self._threads = {lane: ThreadPoolExecutor(count) for lane, count in slots.items()}

    def split(self, order: SplitOrder) -> _Handed:
        return self._call("cpu", cpu_work.split_order, order)

    def transcribe(self, order: TranscribeOrder) -> _Handed:
        return self._call("gpu", gpu_work.transcribe_order, order)

    def land(self, order: LandOrder) -> _Handed:
        run = self._run
        stamp = RunStamp(
            run_id=self._plan.run_id, model=run.settings.model, backend=order.backend, compute_type=order.compute_type,
            options_hash=run.options_hash, engine_version=__version__,
        )  # fmt: skip
        store = open_store(run.settings.dest)
        return _Handed(self._threads["flow"].submit(land_batch, store, order.batch, order.results, stamp))

    @property
    def model_loads(self) -> list[WorkerLoad]:
        return list(self._pools["gpu"].loads)

    def close(self) -> None:
        for threads in self._threads.values():
            threads.shutdown()

    def _call(self, lane: str, body: Callable[..., Any], order: SplitOrder | TranscribeOrder) -> _Handed:
        pool = self._pools[lane]
        return _Handed(
            self._threads[lane].submit(pool.call, body, (order,), {}, deadline_s=order.deadline_s, what=order.name)
        )


@contextmanager
def plain_crew_of(run: PreparedRun, plan: NightPlan) -> Iterator[PlainCrew]:
    pools = {
        "gpu": WorkerPool("gpu", run.devices * run.settings.gpu_workers,
                          setup=WorkerSetup("tasks.gpu_work:load_model", run.model_setup),
                          threads=run.model_setup.cpu_threads, limits=NO_LIMITS, log_level=30, on_log=log_here),
        "cpu": WorkerPool("cpu", ("cpu",) * run.cpu_workers, setup=WorkerSetup("tasks.cpu_work:get_ready"), threads=1,
                          limits=NO_LIMITS, log_level=30, on_log=log_here),
    }  # fmt: skip
    for pool in pools.values():
        pool.warm_up()
    crew = PlainCrew(run, plan, pools)
    try:
        yield crew
    finally:
        crew.close()
        for pool in pools.values():
            pool.close(5.0)
