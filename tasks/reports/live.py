"""What Prefect's UI shows of a run: its name, its progress while it goes on, and its summary when it has ended.

None of it may cost a night: a server that does not take it is a warning in the log.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import PurePath
from typing import cast
from uuid import UUID

import httpx
from prefect import runtime
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

from stt_engine.types import Seconds
from tasks.announce import Logger
from tasks.report import audio_length
from tasks.reports.figures import Figures, NightFigures
from tasks.reports.run_report import duration
from tasks.run_record import Failure
from tasks.settings import RunSettings

PROGRESS_EVERY_S: Seconds = 5.0
TAG = "nightscribe"


def run_title(settings: RunSettings, *, files: int, now: datetime) -> str:
    """`nightly 2026-11-22 · 412 files · ko`: the deployment's name, or `run` where there is none."""
    what = runtime.deployment.name or "run"
    count = "nothing new" if not files else f"{files} file{'s' if files != 1 else ''}"
    return f"{what} {now.astimezone():%Y-%m-%d} · {count} · {language_of(settings)}"


def language_of(settings: RunSettings) -> str:
    return settings.language.strip().lower()


def name_run(title: str, settings: RunSettings, log: Logger) -> None:
    """Give the flow run its name, and tags to find it by: the language and the model."""
    if (run_id := runtime.flow_run.id) is None:
        return
    tags = dict.fromkeys(
        [*runtime.flow_run.tags, TAG, settings.language.strip().lower(), PurePath(settings.model).name]
    )
    with _only_shown(log, "name"), get_client(sync_client=True) as client:
        client.update_flow_run(UUID(run_id), name=title, tags=list(tags))


@contextmanager
def shown_live(
    title: str, settings: RunSettings, figures: NightFigures, log: Logger, *, every_s: Seconds = PROGRESS_EVERY_S
) -> Iterator[None]:
    """Names the run, and keeps a progress artifact of it up to date until the block is left.

    In a thread of its own: Prefect's client waits a minute for a server that is away, and the night does not.
    """
    ended = threading.Event()

    def show() -> None:
        name_run(title, settings, log)
        artifact: UUID | None = None
        while True:
            last, now = ended.is_set(), figures.look()
            percent, line = round(100 * now.share, 1), progress_line(now)
            with _only_shown(log, "progress"):
                if artifact is None:
                    created = create_progress_artifact(percent, key="nightscribe-progress", description=line)
                    artifact = cast(UUID, created)  # a coroutine only in an event loop
                else:
                    update_progress_artifact(artifact, percent, description=line)
            if last:
                return
            ended.wait(every_s)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(show,), name="shown-live", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def progress_line(figures: Figures) -> str:
    """One line for whoever looks now and then."""
    parts = [f"{figures.finished} of {figures.files} files", f"{audio_length(figures.audio_s)} of audio"]
    if figures.failed:
        parts.insert(1, f"{figures.failed} without a transcript")
    if figures.audio_s:
        parts.append(f"{figures.rtfx:.1f} times real time")
    if figures.finished < figures.files:
        parts.append("starting" if figures.left_s is None else f"about {duration(figures.left_s)} left")
    return " · ".join(parts)


def show_summary(text: str, title: str, failures: Sequence[Failure], log: Logger) -> None:
    """The artifacts of a run that has ended: its summary, and what failed where something did."""
    with _only_shown(log, "summary"):
        create_markdown_artifact(text, key="nightscribe-summary", description=title)
        if failures:
            table = [
                {
                    "file": failure.uri,
                    "reason": f"{failure.error_type}: {failure.message}",
                    "what to do": failure.what_to_do,
                    "again": "by the next run" if failure.retryable else "no",
                }
                for failure in failures
            ]
            create_table_artifact(table, key="nightscribe-failures", description=f"what failed: {title}")


@contextmanager
def _only_shown(log: Logger, what: str) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectException, OSError) as error:
        log.log(logging.WARNING, "the Prefect server did not take the run's %s (%s); the run goes on", what, error)
