"""Word and character error rates, counted by jiwer over texts as Whisper's authors compare them.

Both texts go through Whisper's own normalisers (appendix C of arxiv.org/abs/2212.04356): the English one for English,
which knows contractions, numbers and spellings; the basic one for all others, which takes away punctuation, case and
what stands in brackets. Korean and others that space freely are compared without spaces, Korean by syllables: no
letter of one is split off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

SPACED_FREELY = frozenset({"ko", "ja", "zh", "yue", "th", "lo", "my", "km"})
"""Characters are compared without spaces, and tell more than words."""


@dataclass(frozen=True, slots=True)
class Edits:
    """What turns the reference into what was heard, in words or in characters."""

    length: int = 0
    """Of the reference."""
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors over length: above 1 where much was invented, 1 where something was heard and nothing said."""
        return self.errors / self.length if self.length else float(self.errors > 0)


@dataclass(frozen=True, slots=True)
class Compared:
    """One text against another."""

    words: Edits
    characters: Edits


def normalised(text: str, language: str) -> str:
    return str(_normaliser(language)(text)).strip()


def compare(reference: str, heard: str, language: str) -> Compared:
    """Of texts as they were written; `language` is a Whisper code, or "" where it is unknown."""
    truth, said = normalised(reference, language), normalised(heard, language)
    words = jiwer.process_words(truth, said)
    if language in SPACED_FREELY:
        truth, said = truth.replace(" ", ""), said.replace(" ", "")
    return Compared(_edits(words), _edits(jiwer.process_characters(truth, said)))


def summed(edits: Iterable[Edits]) -> Edits:
    found = list(edits)
    return Edits(
        sum(each.length for each in found),
        sum(each.substitutions for each in found),
        sum(each.deletions for each in found),
        sum(each.insertions for each in found),
    )


def _edits(counted: jiwer.WordOutput | jiwer.CharacterOutput) -> Edits:
    length = counted.hits + counted.substitutions + counted.deletions
    return Edits(length, counted.substitutions, counted.deletions, counted.insertions)


@cache
def _normaliser(language: str) -> BasicTextNormalizer | EnglishTextNormalizer:
    return EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
