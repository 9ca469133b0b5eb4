"""The crew of a night that runs under Prefect: every order becomes a task run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from prefect.futures import PrefectConcurrentFuture
from prefect.tasks import Task
from prefect.utilities.annotations import opaque

from stt_engine import __version__
from stt_engine.types import Seconds
from tasks import steps
from tasks.night_terms import CrewSize, Pending
from tasks.on_dask import dask_task_runner
from tasks.orders import LandOrder, SplitOrder, SplitOutcome, TranscribedChunks, TranscribeOrder
from tasks.prepare import PreparedRun
from tasks.runners.gpu_task_runner import GpuTaskRunner
from tasks.runners.seat import PoolLimits
from tasks.runners.worker import WorkerSetup
from tasks.runners.worker_process import WorkerLoad
from tasks.types import LandedPart, NightPlan, RunStamp


@dataclass(frozen=True, slots=True)
class Retries:
    count: int = 3
    delay_s: Seconds = 10.0


class PrefectCrew:
    """Submits orders to the flow's own task runner.

    Retries are for files: an order for one file that goes alone is retried, a group or a mixed task batch is not, since
    the night takes those apart.
    """

    def __init__(
        self,
        runner: GpuTaskRunner,
        *,
        dest: str,
        run_id: str,
        model: str,
        options_hash: str,
        retries: Retries,
    ) -> None:
        self._runner = runner
        self._dest, self._run_id, self._model = dest, run_id, model
        self._options_hash = options_hash
        self._retries = retries

    def split(self, order: SplitOrder) -> Pending[tuple[SplitOutcome, ...]]:
        return self._submit(steps.split, retried=order.alone, order=order)

    def transcribe(self, order: TranscribeOrder) -> Pending[TranscribedChunks]:
        return self._submit(steps.transcribe, retried=order.alone, order=order)

    def land(self, order: LandOrder) -> Pending[LandedPart]:
        stamp = RunStamp(
            run_id=self._run_id,
            model=self._model,
            backend=order.backend,
            compute_type=order.compute_type,
            options_hash=self._options_hash,
            engine_version=__version__,
        )
        # Opaque: Prefect would walk through every segment and word, looking for futures.
        return self._submit(steps.land, retried=True, order=opaque(order), stamp=opaque(stamp), dest=self._dest)

    def abandon(self) -> None:
        """Drop what is queued and end every worker at once: the run was cancelled."""
        self._runner.abandon()

    def size(self) -> CrewSize:
        """Worker processes that there are at the moment."""
        return self._runner.size

    @property
    def model_loads(self) -> list[WorkerLoad]:
        """Every load of the model so far: one per GPU worker, and one more for each that took a dead one's place."""
        return [load for load in self._runner.loads if load.kind == "gpu"]

    def _submit(self, task: Task[Any, Any], *, retried: bool, **parameters: Any) -> Pending[Any]:
        tries = steps.Tries()
        if retried:
            task = steps.with_retries(task, retries=self._retries.count, delay_s=self._retries.delay_s, tries=tries)
        return _Submitted(self._runner.submit(task, parameters), tries)


@dataclass(frozen=True, slots=True)
class _Submitted:
    """Prefect's future, which does not know how often its task ran."""

    future: PrefectConcurrentFuture[Any]
    tries: steps.Tries

    @property
    def attempts(self) -> int:
        return self.tries.repeated + 1

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self.future.add_done_callback(fn)

    def result(self) -> Any:
        return self.future.result()


@contextmanager
def crew_of(run: PreparedRun, plan: NightPlan) -> Iterator[PrefectCrew]:
    """Workers on the run's devices, loading the model from now on; gone when the block is left, at once by an error.

    With nothing to do no worker is started.
    """
    advanced = run.settings.advanced
    make = GpuTaskRunner if run.settings.task_runner == "local" else partial(dask_task_runner, run)
    runner = make(
        gpu_devices=run.devices,
        gpu_workers_per_device=run.settings.gpu_workers,
        cpu_workers=run.cpu_workers,
        gpu_setup=WorkerSetup("tasks.gpu_work:load_model", run.model_setup),
        cpu_setup=WorkerSetup("tasks.cpu_work:get_ready"),
        gpu_threads_per_worker=run.model_setup.cpu_threads,
        gpu_deadline_s=advanced.transcribe_deadline_s,
        cpu_deadline_s=advanced.split_deadline_s,
        # What a file meets of its predecessors' memory is half of its limit at most, or it would pay for their leaks.
        cpu_limits=PoolLimits(
            memory_bytes=advanced.cpu_worker_memory_bytes, recycle_above_bytes=advanced.cpu_worker_memory_bytes // 2
        ),
    )
    with runner:
        if plan.batches:
            runner.warm_up()
        yield PrefectCrew(
            runner,
            dest=run.settings.dest,
            run_id=plan.run_id,
            model=run.settings.model,
            options_hash=run.options_hash,
            retries=Retries(advanced.retries, advanced.retry_delay_s),
        )
