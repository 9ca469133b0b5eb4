"""What a night is told, whom it asks, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from stt_engine.split import SplitOptions
from stt_engine.types import Seconds, TranscribeOptions
from tasks.labels import LabelPattern
from tasks.orders import LandOrder, SplitOrder, SplitOutcome, TranscribedChunks, TranscribeOrder
from tasks.task_batches import BatchBounds
from tasks.types import AudioFile, FileFailure, FileResult, LandedPart

Answer = TypeVar("Answer", covariant=True)


class Pending(Protocol[Answer]):
    """A future as Prefect's and concurrent.futures' both are, which also tells how often its order was tried."""

    @property
    def attempts(self) -> int:
        """1 unless the crew tried again by itself; final when the future is done."""
        ...

    def add_done_callback(self, fn: Callable[[Any], None]) -> None: ...

    def result(self) -> Answer: ...


class Crew(Protocol):
    """Who does the work. Every call returns at once; errors come out of `result()`."""

    def split(self, order: SplitOrder) -> Pending[tuple[SplitOutcome, ...]]: ...

    def transcribe(self, order: TranscribeOrder) -> Pending[TranscribedChunks]: ...

    def land(self, order: LandOrder) -> Pending[LandedPart]: ...


@dataclass(frozen=True, slots=True)
class CrewSize:
    """Worker processes that there are at the moment; on a cluster they come and go."""

    gpu_workers: int
    cpu_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NightOptions:
    split: SplitOptions
    transcribe: TranscribeOptions
    model: str
    backend: str
    """As asked for; the rows carry the one that the workers loaded."""
    spool_uri: str
    cpu_workers: int
    gpu_workers: int
    batches: BatchBounds = field(default_factory=BatchBounds)
    files_alone_up_to: int = 100
    """Up to this many files each has a split task of its own; beyond, they go in groups: a task run costs Prefect some
    60 ms of CPU, three times what a short call takes to split."""
    group_bytes: int = 256 * 2**20
    """A group is closed when its files have so many bytes together, so that what is being split stays bounded."""
    split_deadline_s: Seconds = 1800.0
    transcribe_deadline_s: Seconds = 1800.0
    stop_at: datetime | None = None
    labels: LabelPattern | None = None


@dataclass(frozen=True, slots=True)
class FileFinished:
    """Said once for every file, when nothing more will be tried for it in this run."""

    file: AudioFile
    outcome: FileResult | FileFailure


@dataclass(frozen=True, slots=True)
class NightOutcome:
    landed: int
    failed_terminal: int
    failures_left: tuple[FileFailure, ...]
    deferred: tuple[AudioFile, ...]
    """Still being written: the next run takes them."""
    not_started: int
    """Of the plan, what is left for the next run because the stop time came or the run was cancelled."""
    audio_s: Seconds
    speech_s: Seconds
    languages: Mapping[str, int]
    timings_s: Mapping[str, float]
    parts: tuple[LandedPart, ...]
    unsettled: tuple[str, ...]
    """Batches of which nobody knows whether their part was created."""
    backend: str
    compute_type: str
    cancelled: bool
