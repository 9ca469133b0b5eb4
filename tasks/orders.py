"""What the night asks of its workers, and what they answer. Frozen and small: samples stay in the spool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stt_engine.language import LanguageGuess
from stt_engine.split import SplitOptions
from stt_engine.types import ChunkTranscript, Seconds, TranscribeOptions
from tasks.types import AudioFile, FileFailure, FileResult, LandingBatch, SplitFile, SpooledChunk


@dataclass(frozen=True, slots=True)
class SplitOrder:
    """Fetch, decode and cut these files. With `alone`, errors are raised, so that Prefect shows and retries them."""

    files: tuple[AudioFile, ...]
    options: SplitOptions
    spool_uri: str
    alone: bool
    deadline_s: Seconds
    """For each of them."""

    @property
    def name(self) -> str:
        return _named([file.key for file in self.files])


SplitOutcome = SplitFile | FileFailure


@dataclass(frozen=True, slots=True)
class TranscribeOrder:
    """Chunks of one or of many files for one worker that holds the model."""

    chunks: tuple[SpooledChunk, ...]
    keys: tuple[str, ...]
    """The files that they belong to, by key below SOURCE, for names and messages."""
    options: TranscribeOptions
    languages: Mapping[str, LanguageGuess]
    """By file_id, where an earlier order has found it."""
    deadline_s: Seconds
    alone: bool = False
    """One file that failed before: retried under its own name."""

    @property
    def name(self) -> str:
        return f"{_named(self.keys)} · {len(self.chunks)} chunks"


@dataclass(frozen=True, slots=True)
class TranscribedChunks:
    """The answer to a `TranscribeOrder`, chunk by chunk in its order."""

    transcripts: tuple[ChunkTranscript, ...]
    backend: str
    compute_type: str
    worker_pid: int
    timings_s: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by stage: read, those of `stt_engine.stage_times`, and texts, which is all the rest."""


@dataclass(frozen=True, slots=True)
class LandOrder:
    """All that is known of one landing batch."""

    batch: LandingBatch
    results: tuple[FileResult, ...]
    backend: str
    """The one that the workers loaded, and below its compute type."""
    compute_type: str

    @property
    def name(self) -> str:
        return f"{self.batch.batch_id[:8]} · {len(self.results)} files"


def _named(keys: tuple[str, ...] | list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{len(keys)} files from {keys[0]}"
