"""A night with the scripted crew, run to its end: what the tests of the dispatcher share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stt_engine.errors import (
    NightscribeError,
)
from stt_engine.split import SplitOptions
from stt_engine.types import TranscribeOptions
from tasks.night import Night
from tasks.night_terms import FileFinished, NightOptions, NightOutcome
from tasks.task_batches import BatchBounds
from tests.tasks.scripted_crew import Recording, ScriptedCrew, plan_of

MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
BOUNDS = BatchBounds(target_s=4.0, least_windows=4, most_windows=8)
"""The scripted crew takes 0.5 s a window, so a task batch is to have 8."""


@pytest.fixture
def spool() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def options(spool: Path, **changed: Any) -> NightOptions:
    chosen: dict[str, Any] = {
        "split": SplitOptions(),
        "transcribe": TranscribeOptions(),
        "model": "fixture",
        "backend": "auto",
        "spool_uri": str(spool),
        "cpu_workers": 2,
        "gpu_workers": 1,
        "batches": BOUNDS,
    }
    return NightOptions(**chosen | changed)


class Played:
    """A night that has been run to its end."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        spool: Path,
        *,
        seed: int = 0,
        batch_size: int = 3,
        cancelled: Callable[[], bool] = lambda: False,
        arrange: Callable[[ScriptedCrew], None] = lambda _: None,
        **changed: Any,
    ) -> None:
        self.recordings = recordings
        self.crew = ScriptedCrew(recordings, spool, seed)
        self.finished: list[FileFinished] = []
        self.most_waiting = 0
        self.night = Night(
            plan_of(recordings, batch_size),
            self.crew,
            options(spool, **changed),
            on_file=self.finished.append,
            cancelled=lambda: self._look() or cancelled(),
        )
        arrange(self.crew)
        self.crew.direct(self.night)

    def run(self) -> NightOutcome:
        return self.night.run()

    def _look(self) -> bool:
        self.most_waiting = max(self.most_waiting, self.night._batcher.waiting_windows)
        return False

    @property
    def left(self) -> dict[str, NightscribeError | None]:
        return {f.file.key: f.outcome for f in self.finished if f.file.key not in self.crew.landed}  # type: ignore[misc]


def names(count: int) -> list[str]:
    return [f"{number:03d}.wav" for number in range(count)]
