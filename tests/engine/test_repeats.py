"""Halves of a window."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.repeats import halves
from stt_engine.second_looks import Window
from stt_engine.types import Region


@st.composite
def windows(draw: st.DrawFn) -> Window:
    edges = sorted(draw(st.sets(st.integers(0, 480_000), min_size=2, max_size=20)))
    regions = tuple(Region(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False))
    offset = draw(st.integers(0, 1_000))
    return Window(0, "f", offset, np.arange(edges[-1] + draw(st.integers(0, 4_000)), dtype=np.float32), regions)


@given(windows())
def test_the_halves_hold_every_region_whole_and_once(window: Window) -> None:
    found = halves(window)
    assert (found is None) == (len(window.regions) < 2)
    if found is None:
        return
    regions = []
    for half in found:
        assert half.regions
        start = half.offset_samples - window.offset_samples
        assert (half.samples == window.samples[start : start + len(half.samples)]).all()
        for region in half.regions:
            assert 0 <= region.start_sample < region.end_sample <= len(half.samples)
            regions.append(Region(region.start_sample + start, region.end_sample + start))
    assert tuple(regions) == window.regions


def test_a_window_is_halved_at_the_silence_nearest_to_its_middle() -> None:
    regions = (Region(0, 100), Region(200, 45_000), Region(55_000, 90_000))
    found = halves(Window(0, "f", 0, np.zeros(100_000, np.float32), regions))
    assert found is not None
    assert [len(half.regions) for half in found] == [2, 1]
