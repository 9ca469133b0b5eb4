"""Warping and smoothing against openai-whisper's own."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.timing import dtw_cpu, median_filter

from stt_engine.backends.torch_alignment import MEDIAN_WIDTH, _attention, _median
from stt_engine.backends.torch_warp import warp


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 40)), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_the_paths_are_openais(shapes: list[tuple[int, int]], seed: int, ties: bool) -> None:
    """Of windows of unlike shapes in one batch as of each by itself."""
    generator = np.random.default_rng(seed)
    costs = [
        (generator.integers(-2, 3, shape) if ties else generator.normal(size=shape)).astype(np.float32)
        for shape in shapes
    ]
    for cost, path in zip(costs, warp([torch.from_numpy(cost) for cost in costs]), strict=True):
        rows, columns = dtw_cpu(cost.astype(np.float64))
        assert path == list(zip(rows.tolist(), columns.tolist(), strict=True))
        assert all(type(place) is int for step in path for place in step)


def test_no_window_has_no_path() -> None:
    assert warp([]) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_median_is_openais(length: int, seed: int) -> None:
    x = torch.randn((2, 3, length), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(_median(x), median_filter(x, MEDIAN_WIDTH))


def test_attention_of_equal_tokens_is_a_number() -> None:
    """A position that all tokens look at alike has no deviation to divide by."""
    assert torch.isfinite(_attention(torch.zeros(2, 4, 30))).all()
