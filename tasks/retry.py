"""Which task runs Prefect may try again; how often and when, `tasks.steps.with_retries` says.

This is the outer of two rings: a storage call has been tried again within seconds (`tasks.backoff`) before its task
fails at all. The waits here are for what takes longer to pass: a worker that has to load its model anew, a device
that another process has filled, a store that is down for half a minute.
"""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from stt_engine.errors import RetryableError, SourceChanged


def is_retryable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the exception in a failed state is a RetryableError of ours; everything else would only fail again.

    Not SourceChanged: no waiting brings back the content that was listed, the next run takes the new one.
    """
    error = error_of(state)
    return isinstance(error, RetryableError) and not isinstance(error, SourceChanged)


def error_of(state: State[Any]) -> BaseException | None:
    """The exception that a task run failed with, while it is still in this process."""
    found = state.data
    found = getattr(found, "result", found)  # a ResultRecord, where results are persisted
    return found if isinstance(found, BaseException) else None
