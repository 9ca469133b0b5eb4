from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stt_engine.spool import BYTES_PER_SAMPLE, ChunkSpool, from_pcm16, to_pcm16
from stt_engine.types import Chunk, ChunkAudio, Samples

int16 = npst.arrays(np.int16, st.integers(1, 400))
anything = npst.arrays(np.float32, st.integers(1, 400), elements=st.floats(-2, 2, width=32))


@given(counts=int16)
def test_what_came_from_16_bits_comes_back_bit_by_bit(counts: np.ndarray) -> None:  # type: ignore[type-arg]
    samples = counts.astype(np.float32) / np.float32(32_768)
    np.testing.assert_array_equal(from_pcm16(to_pcm16(samples)), samples)


@given(samples=anything)
def test_anything_else_comes_back_within_half_a_step_or_at_full_scale(samples: Samples) -> None:
    heard = from_pcm16(to_pcm16(samples))
    assert heard.dtype == np.float32
    assert np.abs(heard - np.clip(samples, -1, 32_767 / 32_768)).max() <= 0.5 / 32_768


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=8), data=st.data())
def test_chunks_are_read_from_anywhere(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject
) -> None:
    given_chunks = [
        ChunkAudio(Chunk("f", None, index, 500 * index, 500 * index + n), np.full(n, index / 64, np.float32))
        for index, n in enumerate(lengths)
    ]
    path = tmp_path_factory.getbasetemp() / "spool"
    with ChunkSpool(path) as spool:
        offsets = [spool.append(audio) for audio in given_chunks]
        assert offsets == [BYTES_PER_SAMPLE * sum(lengths[:index]) for index in range(len(lengths))]
        for position in data.draw(st.permutations(range(len(lengths)))):
            found = spool.read(position)
            assert found.chunk == given_chunks[position].chunk
            np.testing.assert_array_equal(found.samples, given_chunks[position].samples)
