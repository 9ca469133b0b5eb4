"""Tasks and flows that the tests of the task runner run, here so that workers and child processes can import them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import TaskRunner

from stt_engine.errors import CorruptAudio, StorageUnavailable
from tasks.retry import is_retryable
from tasks.runners.gpu_task_runner import GpuTaskRunner, running_task_runner
from tasks.runners.lanes import on_cpu_worker, on_gpu_worker
from tasks.runners.worker import WorkerSetup
from tasks.runners.worker_process import WorkerLoad
from tests.tasks import worker_bodies as bodies
from tests.tasks.waiting import pid_in, until
from tests.tasks.worker_bodies import Birth, Timed

GPU_SETUP = WorkerSetup("tests.tasks.worker_bodies:remember_birth", arguments="gpu")
CPU_SETUP = WorkerSetup("tests.tasks.worker_bodies:remember_birth", arguments="cpu")


@dataclass(frozen=True)
class Chunk:
    file_id: str
    index: int
    start_sample: int
    end_sample: int
    regions: tuple[int, ...] = (1, 2, 3)


@dataclass(frozen=True)
class Batch:
    chunks: tuple[Chunk, ...]


def runner(**options: Any) -> GpuTaskRunner:
    chosen: dict[str, Any] = {
        "gpu_devices": ("cpu",),
        "cpu_workers": 1,
        "gpu_setup": GPU_SETUP,
        "cpu_setup": CPU_SETUP,
        "gpu_threads_per_worker": 1,
    }
    return GpuTaskRunner(**chosen | options)


@task(cache_policy=NO_CACHE)
@on_gpu_worker
def where_gpu() -> tuple[int, Birth]:
    return os.getpid(), bodies.birth()


@task(cache_policy=NO_CACHE)
@on_cpu_worker
def where_cpu() -> tuple[int, Birth]:
    return os.getpid(), bodies.birth()


@task(cache_policy=NO_CACHE)
def where_flow() -> int:
    return os.getpid()


@task(cache_policy=NO_CACHE)
@on_gpu_worker
def measure(batch: Batch) -> int:
    return len(batch.chunks)


@task(cache_policy=NO_CACHE, retries=1, retry_condition_fn=is_retryable, task_run_name="crash {number}")
@on_gpu_worker
def crash_once_at(number: int, unlucky: int, marker: Path) -> int:
    if number == unlucky:
        bodies.crash_once(marker)
    return number


@task(cache_policy=NO_CACHE, retries=2, retry_condition_fn=is_retryable)
@on_cpu_worker
def fail_retryably(attempts: Path) -> None:
    bodies.append("attempt", attempts)
    raise StorageUnavailable("the store asks for fewer requests")


@task(cache_policy=NO_CACHE, retries=2, retry_condition_fn=is_retryable)
@on_cpu_worker
def fail_terminally(attempts: Path) -> None:
    bodies.append("attempt", attempts)
    raise CorruptAudio("a.mp3: nothing of it decodes")


@task(cache_policy=NO_CACHE, task_run_name="transcribe {path.name}")
@on_gpu_worker
def crash_named(path: Path) -> None:
    bodies.crash(signal.SIGKILL)


@task(cache_policy=NO_CACHE)
@on_gpu_worker
def block(started: Path, timed: Timed | None = None) -> None:
    bodies.block(started)


@task(cache_policy=NO_CACHE)
@on_cpu_worker
def hold_cpu(started: Path, released: Path) -> None:
    bodies.block_until(started, released)


@task(cache_policy=NO_CACHE)
@on_cpu_worker
def block_on_cpu(started: Path) -> None:
    bodies.block(started)


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=60)
@on_gpu_worker
def block_with_retries(started: Path) -> None:
    bodies.block(started)


@task(cache_policy=NO_CACHE)
@on_gpu_worker
def append(line: str, path: Path) -> str:
    bodies.append(line, path)
    return line


@task(cache_policy=NO_CACHE, task_run_name="speak of a.wav")
@on_gpu_worker
def speak() -> None:
    bodies.speak()


def run(body: Callable[[], Any], task_runner: TaskRunner[Any] | None = None) -> Any:
    """What `body` returns when it is a flow's."""
    return flow(task_runner=task_runner or runner(), persist_result=False)(body)()


def loads(count: int) -> list[WorkerLoad]:
    """The running flow's, once there are so many."""
    started = running_task_runner()
    assert started is not None
    until(lambda: len(started.loads) >= count)
    return started.loads


def blocked_night(folder: str) -> None:
    """A flow with both kinds of worker busy for ever and more queued behind; tests end it from outside."""

    def night() -> None:
        place = Path(folder)
        futures = [block_with_retries.submit(place / "gpu"), block_on_cpu.submit(place / "cpu")]
        pid_in(place / "gpu", within_s=60.0)
        futures += [append.submit("queued", place / "queued") for _ in range(20)]
        for future in futures:
            future.wait()

    run(night)


if __name__ == "__main__":
    from tests.tasks import runner_flows

    runner_flows.blocked_night(sys.argv[1])
