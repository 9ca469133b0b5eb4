"""Which chunks share a transcribe task: a whole number of small files, or a stretch of a long one.

A task batch is worth some seconds of the device's time: less, and the orchestrator's milliseconds show; more, and a
worker's death loses more and the first rows land later. How many windows that is, is measured as the night goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from stt_engine.language import VOTE_WINDOWS, evenly_spread
from stt_engine.types import Seconds
from tasks.types import SpooledChunk


@dataclass(frozen=True, slots=True)
class BatchBounds:
    target_s: Seconds = 6.0
    least_windows: int = 16
    most_windows: int = 256
    patient_windows: int = 0
    """Where the model shares its cores with splitting: what a batch waits for, if that is worth no more than
    `patient_s`. Meanwhile the cores split; a device of its own would idle."""

    @property
    def patient_s(self) -> Seconds:
        """Small models write most quickly where many windows share a step."""
        return 3 * self.target_s


@dataclass(slots=True)
class TaskBatcher:
    """Collects chunks of split files and hands them out in task batches.

    A file whose language is to be voted on is never spread over several batches, unless it is longer than one: then a
    first batch of windows from all over it votes, and the others wait for `language_known`.
    """

    bounds: BatchBounds
    vote: bool
    """Whether languages are detected at all."""
    _ready: deque[tuple[str, tuple[SpooledChunk, ...]]] = field(default_factory=deque)
    _waiting: dict[str, tuple[SpooledChunk, ...]] = field(default_factory=dict)
    _ready_windows: int = 0
    _window_s: Seconds | None = None

    @property
    def ready_windows(self) -> int:
        return self._ready_windows

    @property
    def waiting_windows(self) -> int:
        """Spooled but not yet handed out, votes pending included."""
        return self._ready_windows + sum(len(chunks) for chunks in self._waiting.values())

    @property
    def batch_windows(self) -> int:
        """How many windows a task batch should have by what was measured so far."""
        if self._window_s is None:
            return self.bounds.least_windows
        window_s = max(self._window_s, 1e-6)
        wanted = min(self.bounds.most_windows, int(self.bounds.target_s / window_s))
        patient = min(self.bounds.patient_windows, int(self.bounds.patient_s / window_s))
        return max(self.bounds.least_windows, wanted, patient)

    @property
    def worth_sending(self) -> int:
        """How many windows go to a worker that has nothing to do while files are still being split."""
        return max(self.bounds.least_windows, min(self.bounds.patient_windows, self.batch_windows))

    def measured(self, windows: int, wall_s: Seconds) -> None:
        """Learn from a finished batch; the mean moves by a third, so that one odd batch does not swing it."""
        if windows <= 0:
            return
        window_s = wall_s / windows
        self._window_s = window_s if self._window_s is None else self._window_s + (window_s - self._window_s) / 3

    def add(self, file_id: str, chunks: Sequence[SpooledChunk]) -> None:
        if self.vote and len(chunks) > self.bounds.most_windows:
            voters = tuple(evenly_spread(chunks, max(VOTE_WINDOWS, self.bounds.least_windows)))
            chosen = {id(chunk) for chunk in voters}
            self._waiting[file_id] = tuple(chunk for chunk in chunks if id(chunk) not in chosen)
            self._push(file_id, voters)
        elif self.vote:
            self._push(file_id, tuple(chunks))
        else:
            self._push_in_stretches(file_id, chunks)

    def language_known(self, file_id: str) -> None:
        """Free the chunks of a long file that waited for its vote."""
        self._push_in_stretches(file_id, self._waiting.pop(file_id, ()))

    def drop(self, file_id: str) -> None:
        """Forget a file that has failed."""
        self._waiting.pop(file_id, None)
        kept = [(owner, chunks) for owner, chunks in self._ready if owner != file_id]
        self._ready = deque(kept)
        self._ready_windows = sum(len(chunks) for _, chunks in kept)

    def take(self) -> tuple[SpooledChunk, ...]:
        """The next batch: about `batch_windows` windows; empty when nothing is ready."""
        batch: list[SpooledChunk] = []
        while self._ready:
            _, chunks = self._ready[0]
            if batch and len(batch) + len(chunks) > self.batch_windows:
                break
            self._ready.popleft()
            batch.extend(chunks)
        self._ready_windows -= len(batch)
        return tuple(batch)

    def _push_in_stretches(self, file_id: str, chunks: Sequence[SpooledChunk]) -> None:
        step = self.bounds.least_windows
        for start in range(0, len(chunks), step):
            self._push(file_id, tuple(chunks[start : start + step]))

    def _push(self, file_id: str, chunks: tuple[SpooledChunk, ...]) -> None:
        if chunks:
            self._ready.append((file_id, chunks))
            self._ready_windows += len(chunks)
