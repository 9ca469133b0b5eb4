from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.types import Word
from stt_engine.words import build_words, fit_to_segment


def word(text: str, start_s: float, end_s: float, probability: float = 0.9) -> Word:
    return Word(text, start_s, end_s, probability)


def test_marks_join_their_neighbours_and_times_stay_the_words() -> None:
    pieces = [word(' "', 0.0, 0.1), word("Hello", 0.1, 0.5), word(",", 0.5, 0.6), word(" world", 0.6, 1.0)]
    pieces += [word("!", 1.0, 1.1), word('"', 1.1, 1.2)]
    built = build_words(pieces, 5.0)
    assert [w.text for w in built] == [' "Hello,', ' world!"']
    assert [(w.start_s, w.end_s) for w in built] == [(0.1, 0.5), (0.6, 1.0)]


def test_a_mark_over_a_pause_and_the_word_after_it_are_cut() -> None:
    pieces = [word(" a", 0.0, 0.2), word(" b", 0.2, 0.4), word(" c", 0.4, 0.6), word(".", 0.6, 3.0)]
    pieces += [word(" d", 3.0, 9.0), word(" e", 9.0, 9.2)]
    built = build_words(pieces, 30.0)
    assert [w.text for w in built] == [" a", " b", " c.", " d", " e"]
    assert built[3].start_s == pytest.approx(9.0 - 2 * 0.2)
    assert built[3].end_s == 9.0


def test_words_over_the_end_are_held_within_the_window() -> None:
    built = build_words([word(" a", 0.0, 1.0), word(" b", 1.0, 2.0)], 1.5)
    assert [(w.start_s, w.end_s) for w in built] == [(0.0, 1.0), (1.0, 1.5)]


@given(
    times_s=st.lists(st.tuples(st.floats(-1, 40), st.floats(-1, 40)), max_size=12),
    texts=st.lists(st.sampled_from([" a", " b", ".", ",", " (", ' "', "?"]), min_size=12, max_size=12),
    window_s=st.floats(0.01, 30),
)
def test_words_are_in_order_and_within_the_window(
    times_s: list[tuple[float, float]], texts: list[str], window_s: float
) -> None:
    pieces = [word(text, start, end) for text, (start, end) in zip(texts, times_s, strict=False)]
    built = build_words(pieces, window_s)
    assert "".join(w.text for w in built) == "".join(p.text for p in pieces)
    assert all(0 <= w.start_s <= w.end_s <= window_s for w in built)
    assert all(before.end_s <= after.start_s for before, after in pairwise(built))


def test_a_segments_stamps_cut_the_pauses_off_its_first_and_last_word() -> None:
    words = [word(" a", 0.0, 2.5), word(" b", 2.5, 2.7), word(" c", 2.7, 6.0)]
    fitted = fit_to_segment(words, 2.2, 3.1)
    assert [(w.start_s, w.end_s) for w in fitted] == [(2.2, 2.5), (2.5, 2.7), (2.7, 3.1)]


def test_no_word_lies_outside_its_segment() -> None:
    words = (word(" a", 0.2, 0.4), word(" b", 1.5, 2.0), word(" c", 2.6, 2.9))
    assert fit_to_segment(words, 0.5, 2.5) == (word(" a", 0.5, 0.5), word(" b", 1.5, 2.0), word(" c", 2.5, 2.5))
    assert fit_to_segment((), 0.0, 1.0) == ()
