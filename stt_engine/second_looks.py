"""Windows, and which parts of one are looked at a second time because their text is missing or thin."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from stt_engine.quality import uncovered, within
from stt_engine.types import (
    ChunkAudio,
    Region,
    Samples,
    Seconds,
    Segment,
    TranscribeOptions,
    samples_from_seconds,
    seconds_from_samples,
)

SAME_WINDOW_SHARE = 0.9
"""A rest that is nearly the whole window would say the same again."""
SPARSE_SPEECH_S: Seconds = 1.5
"""Shorter stretches of speech say nothing about their density."""
MORE_TEXT = 1.25
"""Decoded alone, a sparse segment must come out longer than this many times its text to be replaced."""
REST_LEAD_SAMPLES = samples_from_seconds(0.1)
"""A little before the speech that was left behind: a word cut at its onset is heard wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One window to decode: a chunk, or the rest of one."""

    chunk_number: int
    file_id: str
    offset_samples: int
    """From the start of the chunk."""
    samples: Samples
    regions: tuple[Region, ...]
    """Speech, from the start of the WINDOW."""
    instead_of: Segment | None = None
    """The segment, in chunk time, that this window is to better; None where there was no text at all."""

    @property
    def duration_s(self) -> Seconds:
        return seconds_from_samples(len(self.samples))


def left_behind(window: Window, segments: Sequence[Segment], options: TranscribeOptions) -> list[Window]:
    """The window's speech that lies under no segment, each stretch as a window of its own."""
    gap_s = options.coverage_gap_s
    if gap_s is None:
        return []
    spans = [(s.start_s, s.end_s) for s in segments]
    return [part_of(window, rest, (rest,)) for rest in uncovered(window.regions, spans, longer_than_s=gap_s)]


def sparse(window: Window, segments: Sequence[Segment], options: TranscribeOptions) -> list[Window]:
    """Segments with suspiciously little text for their speech, each as a window of its own.

    A dense window may skip a sentence and stretch the segment before it over the gap, so that by its time stamps
    nothing is missing; seen on the fixture as in long recordings with large models.
    """
    share = options.sparse_share
    if share is None or len(segments) < 3:
        return []
    measured = []
    for segment in segments:
        span = Region(samples_from_seconds(segment.start_s), samples_from_seconds(segment.end_s) + 1)
        speech = within(window.regions, span)
        speech_s = sum(region.duration_s for region in speech)
        measured.append((segment, span, speech, speech_s, len(segment.text.strip()) / max(speech_s, 0.1)))
    usual = statistics.median(density for *_, density in measured)
    offset_s = seconds_from_samples(window.offset_samples)
    return [
        part_of(window, span, speech, instead_of=segment.shifted(offset_s))
        for segment, span, speech, speech_s, density in measured
        if speech_s > SPARSE_SPEECH_S and density < share * usual
    ]


def window_of(number: int, audio: ChunkAudio) -> Window:
    start = audio.chunk.start_sample
    regions = tuple(Region(r.start_sample - start, r.end_sample - start) for r in audio.chunk.regions)
    return Window(
        chunk_number=number, file_id=audio.chunk.file_id, offset_samples=0, samples=audio.samples, regions=regions
    )


def part_of(window: Window, span: Region, regions: Sequence[Region], *, instead_of: Segment | None = None) -> Window:
    """A stretch of it, with a little of what lies before and after."""
    start = max(0, span.start_sample - REST_LEAD_SAMPLES)
    end = min(len(window.samples), span.end_sample + REST_LEAD_SAMPLES)
    return Window(
        chunk_number=window.chunk_number,
        file_id=window.file_id,
        offset_samples=window.offset_samples + start,
        samples=window.samples[start:end],
        regions=tuple(Region(r.start_sample - start, r.end_sample - start) for r in regions),
        instead_of=instead_of,
    )
