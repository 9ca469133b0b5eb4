"""Speech under text and speech left behind, sample by sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.quality import covered_seconds, uncovered, within
from stt_engine.types import Region, samples_from_seconds, seconds_from_samples

N = 2_000
"""All of it happens within so many samples."""


@st.composite
def disjoint_regions(draw: st.DrawFn) -> list[Region]:
    edges = sorted(draw(st.sets(st.integers(0, N), max_size=16)))
    return [Region(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False)]


spans = st.lists(st.tuples(st.integers(0, N), st.integers(0, N)).map(lambda pair: (min(pair), max(pair))), max_size=8)


def mask(stretches: list[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    inside = np.zeros(N, dtype=bool)
    for start, end in stretches:
        inside[start:end] = True
    return inside


def mask_of(regions: list[Region]) -> npt.NDArray[np.bool_]:
    return mask([(region.start_sample, region.end_sample) for region in regions])


def in_seconds(stretches: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(seconds_from_samples(start), seconds_from_samples(end)) for start, end in stretches]


@given(regions=disjoint_regions(), text=spans)
def test_what_is_left_is_speech_without_text(regions: list[Region], text: list[tuple[int, int]]) -> None:
    left = uncovered(regions, in_seconds(text), longer_than_s=0.0)
    assert (mask_of(left) == (mask_of(regions) & ~mask(text))).all()
    assert left == sorted(left, key=lambda region: region.start_sample)


@given(regions=disjoint_regions(), text=spans, shortest=st.integers(0, 300))
def test_only_long_stretches_are_reported(regions: list[Region], text: list[tuple[int, int]], shortest: int) -> None:
    everything = uncovered(regions, in_seconds(text), longer_than_s=0.0)
    longer = uncovered(regions, in_seconds(text), longer_than_s=seconds_from_samples(shortest))
    assert longer == [r for r in everything if r.end_sample - r.start_sample > shortest]


@given(regions=disjoint_regions(), text=spans)
def test_covered_seconds_are_the_speech_under_text(regions: list[Region], text: list[tuple[int, int]]) -> None:
    covered_s = covered_seconds(regions, in_seconds(text))
    both = int((mask_of(regions) & mask(text)).sum())
    assert covered_s == pytest.approx(seconds_from_samples(both), abs=1e-9)
    assert -1e-9 <= covered_s <= sum(region.duration_s for region in regions) + 1e-9


@given(regions=disjoint_regions(), ends=st.sets(st.integers(0, N), min_size=2, max_size=2))
def test_within_is_the_intersection(regions: list[Region], ends: set[int]) -> None:
    start, end = sorted(ends)
    inside = within(regions, Region(start, end))
    assert (mask_of(inside) == (mask_of(regions) & mask([(start, end)]))).all()


def test_text_over_no_speech_covers_nothing() -> None:
    assert covered_seconds([], [(0.0, 5.0)]) == 0.0
    assert covered_seconds([Region(0, 16_000)], [(1.0, 5.0)]) == 0.0


@given(time_s=st.floats(0, 36_000))
def test_seconds_to_samples_and_back_are_half_a_sample_apart_at_most(time_s: float) -> None:
    assert seconds_from_samples(samples_from_seconds(time_s)) == pytest.approx(time_s, abs=0.5 / 16_000 + 1e-9)
