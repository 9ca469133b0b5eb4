"""Which process a task's body runs in, and threads for each such lane.

Threads are apart by lane: a hundred files waiting for a CPU worker must not hold the threads that would keep the
GPU fed.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

Body = TypeVar("Body", bound=Callable[..., Any])

_LANE_ATTRIBUTE = "nightscribe_lane"


class Lane(enum.StrEnum):
    FLOW = "flow"
    GPU = "gpu"
    CPU = "cpu"


def on_gpu_worker(body: Body) -> Body:
    """Below `@task`: the body runs in a process that holds the model (`tasks.runners.worker.loaded`).

    Only where the task is submitted (`.submit`, `.map`) under a `GpuTaskRunner`; a direct call, or another task
    runner, runs it on the spot. Raises TypeError for a body that no worker could import or call: a nested function,
    a coroutine, a generator.
    """
    return _marked(body, Lane.GPU)


def on_cpu_worker(body: Body) -> Body:
    """Below `@task`: the body runs in a process of its own, so that a decoder that crashes does not end the run.

    As `on_gpu_worker` in all else.
    """
    return _marked(body, Lane.CPU)


def lane_of(body: Callable[..., Any]) -> Lane:
    lane: Lane = getattr(body, _LANE_ATTRIBUTE, Lane.FLOW)
    return lane


def _marked(body: Body, lane: Lane) -> Body:
    name = getattr(body, "__qualname__", repr(body))
    if "<" in name:
        raise TypeError(f"{name} cannot run in a worker, which imports it by name: move it to the top of its module.")
    if inspect.iscoroutinefunction(body) or inspect.isgeneratorfunction(body):
        raise TypeError(f"{name} cannot run in a worker: only plain functions can.")
    if not inspect.isfunction(body):
        raise TypeError(f"Put the lane below @task, on the function itself: {name} is {type(body).__name__}.")
    setattr(body, _LANE_ATTRIBUTE, lane)
    return body


class LaneExecutor(Executor):
    """A thread pool per lane behind one executor; `submit` looks at the Prefect task it is given."""

    def __init__(self, threads: Mapping[Lane, int], initializer: Callable[[], None]) -> None:
        self._pools = {
            lane: ThreadPoolExecutor(count, thread_name_prefix=f"{lane}-tasks", initializer=initializer)
            for lane, count in threads.items()
        }

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        task = kwargs.get("task")
        lane = Lane.FLOW if task is None else lane_of(task.fn)
        return self._pools[lane].submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        # First all of them without waiting: nothing queued may start while one pool is waited for.
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            for pool in self._pools.values():
                pool.shutdown(wait=True)
