"""What the flows and the commands that look after a DEST share: opening it, and a final state in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from stt_engine.errors import NightscribeError
from tasks.redaction import redact_logs, redacted


class Summary(Protocol):
    @property
    def line(self) -> str: ...


def upkeep_state(work: Callable[[], Summary]) -> State:
    """Completed with the summary and its line; Failed with the error in one line, where it is one that we know."""
    redact_logs()
    log = get_run_logger()
    try:
        summary = work()
    except NightscribeError as error:
        line = redacted(" ".join(str(error).split()))
        log.error(line)
        return Failed(message=line, data=error)
    log.info(summary.line)
    return Completed(message=summary.line, data=summary)
