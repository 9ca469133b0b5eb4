from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.timestamps import TIMESTAMP_STEP_S, timed_tokens

BEGIN = 1_000
"""The id of <|0.00|> here; smaller ids are text."""


def stamp(time_s: float) -> int:
    return BEGIN + round(time_s / TIMESTAMP_STEP_S)


def cut(tokens: list[int], duration_s: float = 30.0) -> list[tuple[float, float, tuple[int, ...], bool]]:
    return [
        (round(t.start_s, 2), round(t.end_s, 2), t.tokens, t.closed)
        for t in timed_tokens(tokens, timestamp_begin=BEGIN, duration_s=duration_s)
    ]


def test_pairs_of_stamps_hold_text_and_leave_pauses() -> None:
    tokens = [stamp(0.3), 1, 2, stamp(1.5), stamp(2.0), 3, stamp(2.5)]
    assert cut(tokens) == [(0.3, 1.5, (1, 2), True), (2.0, 2.5, (3,), True)]


def test_one_stamp_between_two_texts_ends_the_one_and_begins_the_other() -> None:
    assert cut([stamp(0.0), 1, stamp(1.0), 2, stamp(2.0)]) == [(0.0, 1.0, (1,), True), (1.0, 2.0, (2,), True)]


def test_without_a_closing_stamp_the_end_is_the_windows() -> None:
    assert cut([stamp(0.5), 1, 2], 3.0) == [(0.5, 3.0, (1, 2), False)]
    assert cut([1, 2], 3.0) == [(0.0, 3.0, (1, 2), False)]


def test_times_in_the_padding_are_held_within_the_audio() -> None:
    assert cut([stamp(1.0), 1, stamp(7.0)], 4.0) == [(1.0, 4.0, (1,), True)]


def test_text_wholly_in_the_padding_is_left_out_unless_there_is_no_other() -> None:
    late = [stamp(5.0), 2, stamp(6.0)]
    assert cut([stamp(1.0), 1, stamp(3.0), *late], 4.0) == [(1.0, 3.0, (1,), True)]
    assert cut(late, 4.0) == [(4.0, 4.0, (2,), True)]


written = st.lists(st.one_of(st.integers(0, 200), st.integers(BEGIN, BEGIN + 1_500)), max_size=60)


@given(tokens=written, duration_s=st.floats(0.01, 30.0))
def test_whatever_is_written_times_stay_within_the_window(tokens: list[int], duration_s: float) -> None:
    found = timed_tokens(tokens, timestamp_begin=BEGIN, duration_s=duration_s)
    assert all(0.0 <= t.start_s <= t.end_s <= duration_s for t in found)
    assert all(t.tokens and max(t.tokens) < BEGIN for t in found)
    assert [t.closed for t in found[:-1]] == [True] * len(found[:-1])


@given(
    stretches=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60), st.lists(st.integers(0, 200), min_size=1))),
)
def test_no_text_is_lost_or_moved_between_ascending_stamps(stretches: list[tuple[int, int, list[int]]]) -> None:
    tokens, expected, step = [], [], 0
    for pause, length, text in stretches:
        start = step + pause
        step = start + length
        tokens += [BEGIN + start, *text, BEGIN + step]
        expected.append((start, step, tuple(text)))
    found = timed_tokens(tokens, timestamp_begin=BEGIN, duration_s=step * TIMESTAMP_STEP_S)
    assert [(t.tokens, t.closed) for t in found] == [(text, True) for *_, text in expected]
    for stretch, (start, end, _) in zip(found, expected, strict=True):
        assert stretch.start_s == pytest.approx(start * TIMESTAMP_STEP_S)
        assert stretch.end_s == pytest.approx(end * TIMESTAMP_STEP_S)
    assert all(a.end_s <= b.start_s + 1e-9 for a, b in pairwise(found))
