"""Who wants to hear how a night goes: the progress bar of the command line, in the process that runs the flow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.night_terms import FileFinished
from tasks.types import FileFailure, LandedPart, NightPlan

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

Event = NightPlan | FileFinished | LandedPart

_listeners: list[Callable[[Event], None]] = []


@contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Hear every event of the nights that run meanwhile in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def announce(event: Event) -> None:
    for listener in tuple(_listeners):
        listener(event)


def tell(finished: FileFinished, log: Logger) -> None:
    """One log line for each file, without a word of what was said in it; then the listeners."""
    outcome, key = finished.outcome, finished.file.key
    if isinstance(outcome, FileFailure):
        log.warning("%s: left for the next run: %s: %s", key, outcome.error_type, outcome.error_message)
    elif outcome.transcript is None:
        log.warning("%s: failed: %s: %s", key, outcome.error_type, outcome.error_message)
    else:
        transcript = outcome.transcript
        log.info(
            "%s: %.1f s of audio, %.1f s of speech, language %s, %d segments",
            key,
            transcript.duration_s,
            transcript.speech_s,
            transcript.language,
            len(transcript.segments),
        )
    announce(finished)
