from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_engine.chunking import Chunker, ChunkOptions
from stt_engine.errors import UsageError
from stt_engine.types import WINDOW_SAMPLES, Chunk, Region

SECOND = 16_000


@st.composite
def recordings_of_regions(draw: st.DrawFn) -> tuple[list[Region], int, ChunkOptions]:
    options = ChunkOptions(
        max_chunk_s=draw(st.sampled_from([1.0, 7.3, 30.0])),
        max_gap_s=draw(st.sampled_from([0.0, 0.5, 5.0, float("inf")])),
        pad_s=draw(st.sampled_from([0.0, 0.25, 1.1])),
    )
    longest = int(options.max_chunk_s * SECOND)
    # gaps and lengths in odd samples, small and large, and regions that touch
    steps = draw(
        st.lists(st.tuples(st.one_of(st.just(0), st.integers(0, 12 * SECOND)), st.integers(1, longest)), max_size=40)
    )
    regions, at = [], 0
    for gap, length in steps:
        regions.append(Region(at + gap, at + gap + length))
        at += gap + length
    return regions, at + draw(st.integers(0, 3 * SECOND)), options


def chunked(regions: list[Region], n_samples: int, options: ChunkOptions) -> list[Chunk]:
    chunker = Chunker(options, file_id="f", channel=None)
    return chunker.feed(regions) + chunker.finish(n_samples)


@settings(deadline=None)
@given(recordings_of_regions())
def test_every_region_lies_in_exactly_one_chunk(recording: tuple[list[Region], int, ChunkOptions]) -> None:
    regions, n_samples, options = recording
    chunks = chunked(regions, n_samples, options)

    assert [region for chunk in chunks for region in chunk.regions] == regions
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    end = 0
    for chunk in chunks:
        assert chunk.regions
        assert end <= chunk.start_sample <= chunk.regions[0].start_sample
        assert chunk.regions[-1].end_sample <= chunk.end_sample <= n_samples
        assert 1 <= chunk.n_samples <= min(WINDOW_SAMPLES, options.max_chunk_s * SECOND)
        gaps = [b.start_sample - a.end_sample for a, b in zip(chunk.regions, chunk.regions[1:], strict=False)]
        assert all(gap <= options.max_gap_s * SECOND for gap in gaps)
        end = chunk.end_sample


@settings(deadline=None)
@given(recordings_of_regions(), st.integers(SECOND // 4, 20 * SECOND))
def test_streaming_gives_the_same_chunks_and_needs_nothing_from_before(
    recording: tuple[list[Region], int, ChunkOptions], step: int
) -> None:
    regions, n_samples, options = recording
    chunker = Chunker(options, file_id="f", channel=None)
    chunks: list[Chunk] = []
    needed_from = 0
    for known_until in range(0, n_samples, step):
        new = chunker.feed([r for r in regions if known_until <= r.start_sample < known_until + step], known_until)
        assert all(chunk.start_sample >= needed_from for chunk in new)
        chunks += new
        assert chunker.needed_from_sample >= needed_from
        needed_from = chunker.needed_from_sample
    last = chunker.finish(n_samples)
    assert all(chunk.start_sample >= needed_from for chunk in last)
    assert chunks + last == chunked(regions, n_samples, options)


def test_chunks_fill_up_but_do_not_swallow_long_silences() -> None:
    def spoken(*spans: tuple[float, float]) -> list[Region]:
        return [Region(int(start * SECOND), int(end * SECOND)) for start, end in spans]

    regions = spoken((1, 9), (10, 19), (20, 28), (29, 33), (60, 61))
    chunks = chunked(regions, 70 * SECOND, ChunkOptions(max_gap_s=5.0, pad_s=0.5))
    assert [(chunk.start_s, chunk.start_s + chunk.duration_s) for chunk in chunks] == [
        (0.5, 28.5),
        (28.5, 33.5),
        (59.5, 61.5),
    ]


def test_a_long_silence_completes_a_chunk_before_its_successor_is_heard() -> None:
    chunker = Chunker(ChunkOptions(max_gap_s=2.0, pad_s=0.5), file_id="f", channel=1)
    assert chunker.feed([Region(SECOND, 2 * SECOND)], 3 * SECOND) == []
    (chunk,) = chunker.feed([], 5 * SECOND)
    assert (chunk.start_s, chunk.duration_s, chunk.channel) == (0.5, 2.0, 1)


def test_wrong_regions_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match="longer than a chunk"):
        chunked([Region(0, WINDOW_SAMPLES + 1)], WINDOW_SAMPLES + 1, ChunkOptions())
    with pytest.raises(ValueError, match="before the region before it ends"):
        chunked([Region(0, 10), Region(9, 20)], 20, ChunkOptions())
    for wrong in ({"max_chunk_s": 31.0}, {"max_chunk_s": 0.5}, {"max_gap_s": -1.0}):
        with pytest.raises(UsageError):
            ChunkOptions(**wrong)
