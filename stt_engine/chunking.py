"""Regions of speech to chunks of at most 30 s: contiguous in file time, cut at silence, streaming.

Greedy: a chunk takes in the next region while both fit and the silence between is not longer than `max_gap_s`. A
window of the model costs the same whether it is full or not, so fuller chunks are cheaper; silence inside a window
tempts the model to invent, so gaps are bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stt_engine.errors import UsageError
from stt_engine.types import WINDOW_S, Chunk, Region, Seconds, samples_from_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkOptions:
    max_chunk_s: Seconds = WINDOW_S
    """1 to 30."""
    max_gap_s: Seconds = 3.0
    """A silence between two regions that is longer than this ends the chunk, and is not decoded."""
    pad_s: Seconds = 0.25
    """Sound before the first and after the last region of a chunk; two chunks share a gap that is too short evenly."""

    def __post_init__(self) -> None:
        if not 1.0 <= self.max_chunk_s <= WINDOW_S:
            raise UsageError(f"max_chunk_s must lie between 1 and {WINDOW_S:g}, not {self.max_chunk_s:g}")
        if self.max_gap_s < 0 or self.pad_s < 0:
            raise UsageError(f"max_gap_s and pad_s must not be negative: {self.max_gap_s:g}, {self.pad_s:g}")


class Chunker:
    """Packs the regions of one stream. Every region lies in exactly one chunk; chunks ascend and do not overlap."""

    def __init__(self, options: ChunkOptions, *, file_id: str, channel: int | None) -> None:
        self._file_id, self._channel = file_id, channel
        self._longest = samples_from_seconds(options.max_chunk_s)
        self._max_gap = samples_from_seconds(min(options.max_gap_s, 1e9))
        self._pad = samples_from_seconds(options.pad_s)
        self._open: list[Region] = []
        self._left_pad = 0
        """Of the open chunk."""
        self._last_end = 0
        """Of the last region fed."""
        self._known_until = 0
        self._n_chunks = 0

    @property
    def needed_from_sample(self) -> int:
        """No chunk still to come reaches back before it."""
        if self._open:
            return self._open[0].start_sample - self._left_pad
        return max(0, self._known_until - self._pad)

    def feed(self, regions: Sequence[Region], known_until_sample: int = 0) -> list[Chunk]:
        """Regions ascending, disjoint, none longer than a chunk (else ValueError); chunks that are complete now.

        `known_until_sample`: no later region starts before it; lets a chunk be complete before its successor is heard.
        """
        complete: list[Chunk] = []
        for region in regions:
            if region.start_sample < self._last_end:
                raise ValueError(f"{region} starts before the region before it ends, at {self._last_end}")
            if region.end_sample - region.start_sample > self._longest:
                raise ValueError(f"{region} is longer than a chunk of {self._longest} samples")
            gap = region.start_sample - self._last_end
            if self._open and (gap > self._max_gap or region.end_sample - self._open[0].start_sample > self._longest):
                complete.append(self._close(min(self._pad, gap // 2)))
            if not self._open:
                between_chunks = self._n_chunks > 0
                self._left_pad = min(self._pad, gap // 2 if between_chunks else gap)
            self._open.append(region)
            self._last_end = region.end_sample
        self._known_until = max(self._known_until, known_until_sample, self._last_end)
        if self._open and self._nothing_more_fits():
            complete.append(self._close(self._pad))
        return complete

    def finish(self, n_samples: int) -> list[Chunk]:
        """The last chunk of a stream of `n_samples`, if there is one."""
        return [self._close(min(self._pad, n_samples - self._last_end))] if self._open else []

    def _nothing_more_fits(self) -> bool:
        """Whether any region still to come must open a new chunk, with room for a whole pad on both sides."""
        gap = self._known_until - self._last_end
        too_far = gap > self._max_gap or self._known_until - self._open[0].start_sample >= self._longest
        return too_far and gap >= 2 * self._pad

    def _close(self, right_pad: int) -> Chunk:
        first, last = self._open[0].start_sample, self._open[-1].end_sample
        room = self._longest - (last - first)
        left_pad = min(self._left_pad, max(room // 2, room - right_pad))
        chunk = Chunk(
            file_id=self._file_id,
            channel=self._channel,
            index=self._n_chunks,
            start_sample=first - left_pad,
            end_sample=last + min(right_pad, room - left_pad),
            regions=tuple(self._open),
        )
        self._open = []
        self._n_chunks += 1
        return chunk
