"""What travels between the steps of a night. Frozen; metadata only, never samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

from stt_engine.types import AudioInfo, Chunk, Seconds, Transcript

FileStatus = Literal["landed", "failed"]


@dataclass(frozen=True, slots=True)
class AudioFile:
    """One object of the source as the listing saw it."""

    uri: str
    """Full and unencoded: `s3://bucket/key`, `file:///...` never: local files are absolute paths."""
    key: str
    """Path below SOURCE, with `/`; what patterns and --key-pattern look at."""
    etag: str | None
    """None where the store has none (local files)."""
    size_bytes: int
    modified_at: datetime
    """UTC."""

    @property
    def version(self) -> str:
        """What changes when the content does: the etag, else size and time of modification."""
        return self.etag or f"{self.size_bytes}-{int(self.modified_at.timestamp() * 1_000_000)}"

    @property
    def file_id(self) -> str:
        """32 hex digits of sha256(uri NUL version): names spool files and joins the tables."""
        import hashlib

        return hashlib.sha256(f"{self.uri}\0{self.version}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SpooledChunk:
    """A chunk whose int16 samples wait in the spool."""

    chunk: Chunk
    spool_uri: str
    offset_bytes: int


@dataclass(frozen=True, slots=True)
class SplitFile:
    """What splitting one file gave."""

    file: AudioFile
    info: AudioInfo
    content_sha256: str
    speech_s: Seconds
    """Summed over channels when they are apart."""
    chunks: tuple[SpooledChunk, ...]
    timings_s: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by stage: fetch, decode, vad, spool."""


@dataclass(frozen=True, slots=True)
class FileFailure:
    """Why one file has no transcript (yet)."""

    file: AudioFile
    error_type: str
    error_message: str
    retryable: bool
    attempts: int = 1
    info: AudioInfo | None = None
    content_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class FileResult:
    """One row of the transcripts table to be."""

    file: AudioFile
    status: FileStatus
    attempts: int
    transcript: Transcript | None = None
    info: AudioInfo | None = None
    content_sha256: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    warnings: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    processing_s: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class RunStamp:
    """What every row of a run says about how it was made."""

    run_id: str
    model: str
    backend: str
    compute_type: str
    options_hash: str
    engine_version: str


@dataclass(frozen=True, slots=True)
class LandingBatch:
    """Files that share a Parquet part; its name, members and date are fixed before the work starts."""

    batch_id: str
    ingest_date: date
    options_hash: str
    files: tuple[AudioFile, ...]
    generations: tuple[int, ...] = ()
    """Beside `files`: rows that each uri had under these options when it was planned; part of the name."""


@dataclass(frozen=True, slots=True)
class NightPlan:
    """What a run has claimed."""

    plan_id: str
    run_id: str
    batches: tuple[LandingBatch, ...]
    discovered: int
    already_done: int
    claimed_elsewhere: int
    """Files that another live run is working on."""
    deferred: int
    """Files younger than the settle time."""

    @property
    def files(self) -> tuple[AudioFile, ...]:
        return tuple(file for batch in self.batches for file in batch.files)


@dataclass(frozen=True, slots=True)
class LandedPart:
    """What landing one batch came to."""

    batch_id: str
    uri: str | None
    """None when nothing was written: no file of the batch has a row yet, or their rows are in another part by now."""
    landed_files: tuple[AudioFile, ...]
    """Those that have a row in the part now, whoever wrote it."""
    wrote: bool
    """False when the part was there already."""
    wall_s: Seconds = 0.0
