"""The steps of a night as Prefect tasks: thin, named after the files they work on, all compute elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from stt_engine.types import Seconds
from tasks import cpu_work, gpu_work
from tasks.land import land_batch
from tasks.orders import LandOrder
from tasks.retry import is_retryable
from tasks.storage import open_store
from tasks.types import LandedPart, RunStamp

log = logging.getLogger(__name__)


def _named(step: str) -> Callable[[], str]:
    """Task runs carry the names of their files; a callable, since a file may be called `{x}.wav`."""

    def name() -> str:
        order: Any = runtime.task_run.parameters["order"]
        return f"{step} {getattr(order, 'value', order).name}"

    return name


# The bodies of the first two live in modules without Prefect, so that no worker spends seconds on importing it.
split = task(name="split", task_run_name=_named("split"), cache_policy=NO_CACHE, persist_result=False)(
    cpu_work.split_order
)
transcribe = task(name="transcribe", task_run_name=_named("transcribe"), cache_policy=NO_CACHE, persist_result=False)(
    gpu_work.transcribe_order
)


@task(name="land", task_run_name=_named("land"), cache_policy=NO_CACHE, persist_result=False)
def land(order: LandOrder, stamp: RunStamp, dest: str) -> LandedPart:
    """Write one part of the tables, exactly once; runs in the flow's process."""
    part = land_batch(open_store(dest), order.batch, order.results, stamp)
    log.info("landed %d files as %s", len(part.landed_files), part.uri)
    return part


@dataclass(slots=True)
class Tries:
    """How often one task run was tried again; Prefect itself tells only its server."""

    repeated: int = 0


def with_retries(step: Task[Any, Any], *, retries: int, delay_s: Seconds, tries: Tries) -> Task[Any, Any]:
    """The step, retried after retryable errors: in `delay_s`, then twice as long each time, with jitter."""

    def worth_another_try(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
        again = is_retryable(task, task_run, state)
        tries.repeated += again
        return again

    return step.with_options(
        retries=retries,
        retry_delay_seconds=exponential_backoff(delay_s) if delay_s > 0 else 0,
        retry_jitter_factor=0.5,
        retry_condition_fn=worth_another_try,
    )
