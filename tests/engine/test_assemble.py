"""Chunk time to file time, and what a transcript adds up to."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.assemble import assemble, in_file_time
from stt_engine.types import SAMPLE_RATE_HZ, AudioInfo, Chunk, ChunkTranscript, Region, Segment, Transcript, Word

INFO = AudioInfo(duration_s=3_600.0, channels=2, sample_rate_hz=8_000, codec="pcm_s16le", container="wav")


def segment(text: str, start_s: float, end_s: float, words: tuple[Word, ...] = ()) -> Segment:
    return Segment(
        text=text,
        start_s=start_s,
        end_s=end_s,
        channel=None,
        avg_logprob=-0.1,
        no_speech_prob=0.0,
        compression_ratio=1.0,
        temperature=0.0,
        words=words,
    )


def chunk_of(
    index: int, start_s: int, *segments: Segment, channel: int | None = None, flags: tuple[str, ...] = ()
) -> ChunkTranscript:
    start = start_s * SAMPLE_RATE_HZ
    region = Region(start, start + 10 * SAMPLE_RATE_HZ)
    chunk = Chunk("file", channel, index, start, start + 30 * SAMPLE_RATE_HZ, regions=(region,))
    return ChunkTranscript(chunk, "ko", 0.9, segments, flags)


def whole(*chunks: ChunkTranscript) -> Transcript:
    speech_s = sum(c.chunk.speech_s for c in chunks)
    return assemble(chunks, info=INFO, speech_s=speech_s, backend="fake", model="m")


times = st.integers(0, 29 * SAMPLE_RATE_HZ)


@given(start=st.integers(0, 36_000 * SAMPLE_RATE_HZ), begin=times, length=times)
def test_file_time_is_chunk_time_and_the_chunks_start(start: int, begin: int, length: int) -> None:
    """Exact to far below a sample, ten hours into a file."""
    words = (Word(" a", begin / SAMPLE_RATE_HZ, (begin + length) / SAMPLE_RATE_HZ, 0.5),)
    said = segment(" a", begin / SAMPLE_RATE_HZ, (begin + length) / SAMPLE_RATE_HZ, words)
    chunk = Chunk("file", 1, 0, start, start + 30 * SAMPLE_RATE_HZ)
    (moved,) = in_file_time(ChunkTranscript(chunk, "en", 1.0, (said,)))
    assert moved.channel == 1
    for timed in (moved, moved.words[0]):
        assert timed.start_s * SAMPLE_RATE_HZ == pytest.approx(start + begin, abs=1e-4)
        assert timed.end_s * SAMPLE_RATE_HZ == pytest.approx(start + begin + length, abs=1e-4)
    assert said.start_s == begin / SAMPLE_RATE_HZ, "the chunk's own times stay as they are"


@given(seed=st.integers(0, 10_000), count=st.integers(0, 8))
def test_chunks_come_in_any_order(seed: int, count: int) -> None:
    chunks = [chunk_of(i, 40 * i, segment(f" a{i}", 1.0, 2.0), segment(f" b{i}", 3.0, 4.0)) for i in range(count)]
    shuffled = random.Random(seed).sample(chunks, count)
    transcript = whole(*shuffled)
    assert transcript == whole(*chunks)
    assert transcript.text == " ".join(f"a{i} b{i}" for i in range(count))
    assert [s.start_s for s in transcript.segments] == [40.0 * i + t for i in range(count) for t in (1.0, 3.0)]


@given(
    spans_s=st.lists(
        st.tuples(st.floats(0, 30), st.floats(0, 30)).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=6
    )
)
def test_no_more_speech_is_covered_than_there_is(spans_s: list[tuple[float, float]]) -> None:
    spans_s.sort()
    transcript = whole(chunk_of(0, 7, *(segment(" a", start_s, end_s) for start_s, end_s in spans_s)))
    assert 0.0 <= transcript.covered_s <= transcript.speech_s + 1e-9


def test_words_say_more_exactly_what_is_covered() -> None:
    words = (Word(" a", 1.0, 2.0, 0.9), Word(" b", 4.0, 5.0, 0.9))
    assert whole(chunk_of(0, 0, segment(" a b", 1.0, 5.0))).covered_s == pytest.approx(4.0)
    assert whole(chunk_of(0, 0, segment(" a b", 1.0, 5.0, words))).covered_s == pytest.approx(2.0)


def test_channels_apart_are_told_turn_by_turn_and_counted_apart() -> None:
    caller = chunk_of(0, 0, segment(" hello", 1.0, 2.0), segment(" yes", 5.0, 6.0), channel=0)
    agent = chunk_of(0, 0, segment(" good morning", 3.0, 4.0), channel=1)
    transcript = whole(agent, caller)
    assert transcript.text == "hello good morning yes"
    assert [s.channel for s in transcript.segments] == [0, 1, 0]
    assert transcript.covered_s == pytest.approx(3.0)


def test_speech_left_without_text_is_warned_of() -> None:
    warnings = whole(chunk_of(0, 0), chunk_of(1, 40, flags=("uncovered_speech",))).warnings
    assert len(warnings) == 1
    assert "1 of 2 chunks" in warnings[0]


def test_a_file_without_speech_has_no_language_but_the_one_asked_for() -> None:
    assert whole().language is None
    assert whole().text == ""
    assert assemble([], info=INFO, speech_s=0.0, backend="b", model="m", language="ko").language == "ko"
