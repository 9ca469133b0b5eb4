from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.language import VOTE_WINDOWS, LanguageBallot, LanguageGuess, evenly_spread, vote

shares = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3).map(
    lambda raw: {code: part / sum(raw) for code, part in zip(("en", "ko", "ja"), raw, strict=True)}
)
ballots = st.lists(st.builds(LanguageBallot, shares, st.floats(0.0, 30.0)), min_size=1, max_size=20)


def test_a_foreign_greeting_is_outvoted() -> None:
    greeting = LanguageBallot({"en": 0.98, "ko": 0.02}, speech_s=4.0)
    talk = [LanguageBallot({"en": 0.3, "ko": 0.7}, speech_s=20.0)] * 3
    assert vote([greeting, *talk]).language == "ko"
    assert vote([greeting]) == LanguageGuess("en", 0.98)


def test_nothing_to_vote_on() -> None:
    with pytest.raises(ValueError, match="no window"):
        vote([])


def test_a_window_whose_speech_was_not_measured_counts_a_little() -> None:
    assert vote([LanguageBallot({"en": 0.1, "ko": 0.9}, speech_s=0.0)]).language == "ko"


@given(given_ballots=ballots)
def test_the_winner_has_a_probability_and_order_does_not_matter(given_ballots: list[LanguageBallot]) -> None:
    guess = vote(given_ballots)
    assert 0.0 < guess.probability <= 1.0
    means = [ballot.probabilities[guess.language] for ballot in given_ballots]
    assert min(means) - 1e-9 <= guess.probability <= max(means) + 1e-9
    assert vote(given_ballots[::-1]).probability == pytest.approx(guess.probability)


@given(given_ballots=ballots)
def test_twice_the_same_votes_say_the_same(given_ballots: list[LanguageBallot]) -> None:
    once, twice = vote(given_ballots), vote(given_ballots * 2)
    assert twice.probability == pytest.approx(once.probability)


@given(n=st.integers(1, 500), count=st.integers(1, VOTE_WINDOWS))
def test_windows_are_taken_from_all_over(n: int, count: int) -> None:
    taken = evenly_spread(range(n), count)
    assert taken == sorted(set(taken))
    assert len(taken) == min(n, count)
    # Every one of `count` equal stretches holds the middle of exactly one; its start may lie in the stretch before.
    if n > count:
        assert [(2 * position + 1) * count // (2 * n) for position in taken] == list(range(count))
