"""Prefect's engine in the flow's threads, the bodies in worker processes that have loaded their model once.

Why not Prefect's own ProcessPoolTaskRunner: it takes 130 to 150 ms a task, and one killed worker fails every other
task, retries ignored, its processes left behind (measured with Prefect 3.8.8).
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, TypeVar

from prefect.client.schemas.objects import RunInput
from prefect.context import FlowRunContext, TaskRunContext
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogHandler
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task
from prefect.utilities.annotations import opaque

from stt_engine.types import Seconds
from tasks.night_terms import CrewSize
from tasks.runners.lanes import Lane, LaneExecutor, lane_of
from tasks.runners.pool import NO_LIMITS, PoolClosed, WorkerPool, as_log_record, log_here
from tasks.runners.seat import PoolLimits
from tasks.runners.wire import WorkerLog
from tasks.runners.worker import WorkerSetup
from tasks.runners.worker_process import WorkerLoad

Result = TypeVar("Result")

_to_api = APILogHandler()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What a runner was made with, and what its duplicates are made with."""

    gpu_devices: tuple[str, ...]
    gpu_workers_per_device: int
    cpu_workers: int
    gpu_setup: WorkerSetup | None
    cpu_setup: WorkerSetup | None
    threads: int | None
    gpu_threads_per_worker: int | None
    cpu_threads_per_worker: int | None
    gpu_deadline_s: Seconds | None
    cpu_deadline_s: Seconds | None
    gpu_limits: PoolLimits
    cpu_limits: PoolLimits
    grace_s: Seconds
    log_level: int

    def named(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Workers(Protocol):
    """What a lane's bodies run on: the processes of this machine, or those of a cluster."""

    @property
    def loads(self) -> list[WorkerLoad]: ...

    def warm_up(self) -> None: ...

    def call(
        self,
        function: Callable[..., Result],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        deadline_s: Seconds | None = None,
        what: str | None = None,
    ) -> Result: ...

    def close(self, grace_s: Seconds = 5.0) -> None: ...

    def kill(self) -> None: ...


class GpuTaskRunner(ThreadPoolTaskRunner[Any]):
    """Runs `@on_gpu_worker` bodies on processes pinned to devices, `@on_cpu_worker` bodies on others.

    Everything else of Prefect is as with threads: retries, states, futures, cancelling. Workers start with the first
    task that needs them, or ahead with `warm_up`. A dataclass argument of such a task is passed whole: Prefect does
    not look for futures inside (which costs more than the task where it holds hundreds of things).
    """

    def __init__(
        self,
        *,
        gpu_devices: tuple[str, ...] = ("cpu",),
        gpu_workers_per_device: int = 1,
        cpu_workers: int = 2,
        gpu_setup: WorkerSetup | None = None,
        cpu_setup: WorkerSetup | None = None,
        threads: int | None = None,
        gpu_threads_per_worker: int | None = None,
        cpu_threads_per_worker: int | None = 1,
        gpu_deadline_s: Seconds | None = 600.0,
        cpu_deadline_s: Seconds | None = 3600.0,
        gpu_limits: PoolLimits = NO_LIMITS,
        cpu_limits: PoolLimits = NO_LIMITS,
        grace_s: Seconds = 5.0,
        log_level: int = logging.INFO,
    ) -> None:
        """
        gpu_devices: "cuda:N" or "cpu"; a GPU worker is what holds a model, wherever it runs.
        threads: task runs under way at once in each lane; None: two for each worker and two more, so that the next
            calls stand ready, and some may wait for their retry, while the workers are busy.
        *_threads_per_worker: threads of the numerical libraries; None: the cores shared out among the pool.
        *_deadline_s: of a call whose arguments have no `deadline_s` of their own; past it its worker is killed.
        log_level: of our own loggers in the workers; those of libraries are forwarded from WARNING.
        """
        self._settings = _Settings(
            gpu_devices=tuple(gpu_devices),
            gpu_workers_per_device=gpu_workers_per_device,
            cpu_workers=cpu_workers,
            gpu_setup=gpu_setup,
            cpu_setup=cpu_setup,
            threads=threads,
            gpu_threads_per_worker=gpu_threads_per_worker,
            cpu_threads_per_worker=cpu_threads_per_worker,
            gpu_deadline_s=gpu_deadline_s,
            cpu_deadline_s=cpu_deadline_s,
            gpu_limits=gpu_limits,
            cpu_limits=cpu_limits,
            grace_s=grace_s,
            log_level=log_level,
        )
        gpu_slots = len(gpu_devices) * gpu_workers_per_device
        self._threads = {
            Lane.GPU: threads or 2 * gpu_slots + 2,
            Lane.CPU: threads or 2 * cpu_workers + 2,
            Lane.FLOW: threads or 8,
        }
        super().__init__(max_workers=sum(self._threads.values()))
        self._pools: dict[Lane, Workers] = {}

    @property
    def pools(self) -> dict[Lane, Workers]:
        """GPU and CPU workers; empty unless the runner is started."""
        return self._pools

    @property
    def loads(self) -> list[WorkerLoad]:
        """Every load of a model by this runner's workers, the CPU workers' set-ups after the GPU workers'."""
        return [load for pool in self._pools.values() for load in pool.loads]

    @property
    def size(self) -> CrewSize:
        """Calls that can be worked on at once."""
        chosen = self._settings
        return CrewSize(len(chosen.gpu_devices) * chosen.gpu_workers_per_device, chosen.cpu_workers)

    def warm_up(self, *lanes: Lane) -> None:
        """Starts workers (of these lanes, or all) without waiting, so that models load while the source is listed."""
        for lane in lanes or tuple(self._pools):
            self._pools[lane].warm_up()

    def duplicate(self) -> GpuTaskRunner:
        return type(self)(**self._named())

    def __enter__(self) -> GpuTaskRunner:
        self._pools = self._make_pools()
        super().__enter__()
        assert self._executor is not None
        self._executor.shutdown(wait=False)  # has started no thread yet
        self._executor = LaneExecutor(self._threads, self._register_worker_thread)  # type: ignore[assignment]
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        """An exception here is a flow that is being ended (SIGTERM, Ctrl-C): Prefect handles a body's own before."""
        try:
            if exc_type is not None:
                self.abandon()
            super().__exit__(exc_type, exc_value, traceback)
        except BaseException:  # a second Ctrl-C while waiting for threads
            self.abandon()
            raise
        finally:
            for pool in self._pools.values():
                pool.close(self._settings.grace_s)

    def abandon(self) -> None:
        """Drops what is queued and kills all workers, so that every thread that waits for one is free at once."""
        for event in self._cancel_events.values():
            event.set()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        killers = [threading.Thread(target=pool.kill) for pool in self._pools.values()]
        for killer in killers:
            killer.start()
        for killer in killers:
            killer.join()

    def submit(
        self,
        task: Task[..., Result],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectConcurrentFuture[Result]:
        lane = lane_of(task.fn)
        if lane is not Lane.FLOW:
            task = self._sent_to_worker(task, lane)
            parameters = {name: opaque(value) if _is_whole(value) else value for name, value in parameters.items()}
        future: PrefectConcurrentFuture[Result] = super().submit(task, parameters, wait_for, dependencies)
        return future

    def _sent_to_worker(self, task: Task[..., Result], lane: Lane) -> Task[..., Result]:
        """The same task, its body replaced by a call of the real one in a worker."""
        if lane not in self._pools:
            raise RuntimeError("The task runner must be started before submitting work.")
        pool, body = self._pools[lane], task.fn
        chosen = self._settings
        default_deadline_s = chosen.gpu_deadline_s if lane is Lane.GPU else chosen.cpu_deadline_s

        @functools.wraps(body)
        def remote(*args: Any, **kwargs: Any) -> Result:
            given = (*args, *kwargs.values())
            deadline_s = next((v.deadline_s for v in given if hasattr(v, "deadline_s")), default_deadline_s)
            what = next((str(v.what) for v in given if hasattr(v, "what")), None) or _task_run_name() or task.name
            try:
                return pool.call(body, args, kwargs, deadline_s=deadline_s, what=what)
            except PoolClosed as error:
                # Not an Exception, so that Prefect neither retries it nor sleeps before a retry.
                raise asyncio.CancelledError(str(error)) from error

        sent = copy.copy(task)
        sent.fn = remote
        return sent

    def _named(self) -> dict[str, Any]:
        return self._settings.named()

    def _make_pools(self) -> dict[Lane, Workers]:
        return {Lane.GPU: self._gpu_pool(), Lane.CPU: self._cpu_pool()}

    def _gpu_pool(self) -> WorkerPool:
        chosen = self._settings
        # Device by device, so that the first workers to start are on different devices.
        devices = chosen.gpu_devices * chosen.gpu_workers_per_device
        return WorkerPool(
            "gpu",
            devices,
            setup=chosen.gpu_setup,
            threads=chosen.gpu_threads_per_worker,
            limits=chosen.gpu_limits,
            log_level=chosen.log_level,
            on_log=forward_log,
        )

    def _cpu_pool(self) -> WorkerPool:
        chosen = self._settings
        return WorkerPool(
            "cpu",
            ("cpu",) * chosen.cpu_workers,
            setup=chosen.cpu_setup,
            threads=chosen.cpu_threads_per_worker,
            limits=chosen.cpu_limits,
            log_level=chosen.log_level,
            on_log=forward_log,
        )

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._named() == other._named()

    __hash__ = None  # type: ignore[assignment]  # as with Prefect's runners

    def __getstate__(self) -> dict[str, Any]:
        return self._named()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a started runner arrives unstarted, as duplicate() gives it


def running_task_runner() -> GpuTaskRunner | None:
    """The started runner of the flow run that this is called in; None where it has another runner, or none."""
    context = FlowRunContext.get()
    runner = None if context is None else context.task_runner
    return runner if isinstance(runner, GpuTaskRunner) else None


def forward_log(record: WorkerLog) -> None:
    """To the logger of the same name, and to the task run's page in Prefect's UI.

    Not through Prefect's run logger, whose records reach the console too: a warning would stand there twice.
    """
    log_here(record)
    if TaskRunContext.get() is None or not get_run_logger().isEnabledFor(record.level):
        return
    if not _sends_to_api(logging.getLogger(record.logger)):
        _to_api.handle(as_log_record(record))


def _sends_to_api(logger: logging.Logger | None) -> bool:
    """Whether it does so already, as the loggers of PREFECT_LOGGING_EXTRA_LOGGERS do."""
    while logger is not None:
        if any(isinstance(handler, APILogHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _is_whole(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _task_run_name() -> str | None:
    context = TaskRunContext.get()
    return None if context is None else context.task_run.name
