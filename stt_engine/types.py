"""The nouns of the engine, frozen, with their units.

Every time is a float of seconds (`Seconds`) and says what it is relative to: `ChunkTranscript` counts from the
start of its CHUNK, `Transcript` from the start of its FILE. Only `stt_engine.assemble` turns the one into the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Seconds = float
Samples = npt.NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000
"""Whisper hears 16 kHz; everything is resampled to it while decoding."""

WINDOW_S = 30.0
WINDOW_SAMPLES = int(WINDOW_S * SAMPLE_RATE_HZ)
"""What one forward pass of the encoder sees; a chunk is never longer."""

BackendName = Literal["faster-whisper", "transformers", "openai-whisper", "fake"]
Task = Literal["transcribe", "translate"]
Timestamps = Literal["none", "segment", "word"]
WindowLength = Literal["full", "fit"]
ChannelMode = Literal["mix", "split"]


def samples_from_seconds(time_s: Seconds) -> int:
    """The one rounding rule: the nearest sample, halves upwards."""
    return int(time_s * SAMPLE_RATE_HZ + 0.5)


def seconds_from_samples(count_samples: int) -> Seconds:
    return count_samples / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What decoding a file found."""

    duration_s: Seconds
    """Decoded, not declared."""
    channels: int
    """In the file, before any mixing down."""
    sample_rate_hz: int
    """In the file, before resampling."""
    codec: str
    container: str
    declared_duration_s: Seconds | None = None
    """What the container promises; None where it promises nothing."""
    warnings: tuple[str, ...] = ()
    """What a reader of the transcript should know, e.g. how much of the file would not decode."""


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of speech, in samples at 16 kHz from the start of the file; half open."""

    start_sample: int
    end_sample: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_sample < self.end_sample:
            raise ValueError(f"a region must not be empty or negative: {self.start_sample}..{self.end_sample}")

    @property
    def duration_s(self) -> Seconds:
        return seconds_from_samples(self.end_sample - self.start_sample)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one window of the model sees: at most 30 s, half open, in samples at 16 kHz from the start of the file."""

    file_id: str
    channel: int | None
    """None when the channels were mixed down, else the channel's number from 0."""
    index: int
    """Position among the chunks of its file and channel."""
    start_sample: int
    end_sample: int
    regions: tuple[Region, ...] = ()
    """The speech inside, in file time, ascending."""

    def __post_init__(self) -> None:
        if not 0 < self.n_samples <= WINDOW_SAMPLES:
            raise ValueError(f"a chunk holds 1 to {WINDOW_SAMPLES} samples, not {self.n_samples}")

    @property
    def n_samples(self) -> int:
        return self.end_sample - self.start_sample

    @property
    def duration_s(self) -> Seconds:
        return seconds_from_samples(self.n_samples)

    @property
    def start_s(self) -> Seconds:
        return seconds_from_samples(self.start_sample)

    @property
    def speech_s(self) -> Seconds:
        return sum(region.duration_s for region in self.regions)


@dataclass(frozen=True, slots=True, eq=False)
class ChunkAudio:
    """A chunk with its samples: float32 `(n_samples,)` in [-1, 1] at 16 kHz."""

    chunk: Chunk
    samples: Samples

    def __post_init__(self) -> None:
        if self.samples.shape != (self.chunk.n_samples,):
            raise ValueError(f"{self.samples.shape} samples for a chunk of {self.chunk.n_samples}")


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    """With its leading space where the language writes one."""
    start_s: Seconds
    end_s: Seconds
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text between two of the model's time stamps."""

    text: str
    start_s: Seconds
    end_s: Seconds
    channel: int | None
    avg_logprob: float
    """Mean log probability of the tokens of the window that it came from."""
    no_speech_prob: float
    compression_ratio: float
    """len(utf-8) / len(zlib(utf-8)) of the window's text; above 2.4 it repeats itself."""
    temperature: float
    flags: tuple[str, ...] = ()
    """Doubts, from `stt_engine.quality.FLAGS`: repetition, invented_phrase, low_confidence, timing."""
    words: tuple[Word, ...] = ()
    tokens: tuple[int, ...] = ()
    """The model's, of the text alone, without time stamps. Not written into tables and files."""

    def shifted(self, offset_s: Seconds) -> Segment:
        return replace(
            self,
            start_s=self.start_s + offset_s,
            end_s=self.end_s + offset_s,
            words=tuple(replace(w, start_s=w.start_s + offset_s, end_s=w.end_s + offset_s) for w in self.words),
        )


@dataclass(frozen=True, slots=True)
class ChunkTranscript:
    """What the model heard in one chunk; times relative to the CHUNK."""

    chunk: Chunk
    language: str
    language_probability: float
    segments: tuple[Segment, ...]
    flags: tuple[str, ...] = ()
    decodes: int = 1
    """How often the window was decoded: more than one when a fallback was taken."""


@dataclass(frozen=True, slots=True)
class Transcript(Mapping[str, Any]):
    """What was said in one file; times relative to the FILE. Also reads as a mapping of its fields."""

    text: str
    language: str | None
    """None when no speech was found."""
    language_probability: float | None
    duration_s: Seconds
    speech_s: Seconds
    covered_s: Seconds
    """Seconds of speech under words (under segments when words were not asked for)."""
    segments: tuple[Segment, ...]
    backend: str
    model: str
    warnings: tuple[str, ...] = ()

    @property
    def duration(self) -> Seconds:
        """`duration_s` under the name that other engines give it; as a key too."""
        return self.duration_s

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)

    def __getitem__(self, key: str) -> Any:
        if key not in set(self):
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        yield from (f.name for f in fields(self))
        yield "duration"

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscribeOptions:
    """Everything that can change the text; the options hash of the tables is made of it."""

    language: str | None = None
    """A Whisper code such as "ko"; None lets the file's speech vote."""
    task: Task = "transcribe"
    timestamps: Timestamps = "segment"
    initial_prompt: str | None = None
    hotwords: str | None = None
    beam_size: int = 1
    window: WindowLength = "full"
    """"fit" pads a device batch to its longest chunk instead of 30 s, and hears again in full what looks suspect."""
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Tried in turn while a chunk looks suspect, as in Whisper's paper, section 4.5."""
    compression_ratio_threshold: float | None = 2.4
    """A chunk whose text compresses better repeats itself; None believes every text, loops included."""
    logprob_threshold: float | None = -1.0
    """A chunk with a lower mean log probability is doubtful; None doubts none for it."""
    no_speech_threshold: float | None = 0.6
    """A doubtful chunk that is likelier than this to hold no speech is silence; None keeps its text."""
    coverage_gap_s: Seconds | None = 1.0
    """Speech that is left without text for longer than this is decoded again; None decodes nothing again for it."""
    sparse_share: float | None = 0.6
    """A segment with less text per second of speech than this share of its chunk's median is decoded again."""
