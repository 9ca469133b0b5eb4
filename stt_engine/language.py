"""Which language a file speaks: a vote of its speech, not of its first 30 seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stt_engine.types import Seconds

VOTE_WINDOWS = 8
"""Enough windows, evenly spread, to outvote a foreign greeting or a jingle; more only cost device time."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LanguageGuess:
    language: str
    probability: float


@dataclass(frozen=True, slots=True)
class LanguageBallot:
    """What one window says: the probability of each language, and how much speech stands behind it."""

    probabilities: Mapping[str, float]
    speech_s: Seconds


def vote(ballots: Iterable[LanguageBallot]) -> LanguageGuess:
    """The language with the largest mean probability, each window weighted by its seconds of speech.

    Raises:
        ValueError: there is no ballot.
    """
    votes: defaultdict[str, float] = defaultdict(float)
    weight = 0.0
    for ballot in ballots:
        # A window whose speech was not measured still counts, a little.
        speech_s = max(ballot.speech_s, 0.1)
        weight += speech_s
        for language, probability in ballot.probabilities.items():
            votes[language] += speech_s * probability
    if not votes:
        raise ValueError("no window to vote on")
    language = max(votes, key=lambda code: votes[code])
    return LanguageGuess(language, min(1.0, votes[language] / weight))


def evenly_spread(windows: Sequence[T], count: int = VOTE_WINDOWS) -> list[T]:
    """At most `count` of `windows`, from all over them: the middle one of each of `count` equal stretches."""
    if len(windows) <= count:
        return list(windows)
    return [windows[(2 * i + 1) * len(windows) // (2 * count)] for i in range(count)]
