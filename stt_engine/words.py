"""Words out of an alignment: which tokens make a word, when it was said, how sure the model was.

The rules are openai/whisper's `timing.py` (find_alignment, merge_punctuations, add_word_timestamps), which
faster-whisper shares: cross attention gives each token the time at which the path steps onto it; punctuation joins
its neighbour; a word stretched over a sentence's end is cut to twice the median. openai's further cuts, after a pause,
are left to `fit_to_segment`, which knows where the pause was. All times are relative to the WINDOW.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from stt_engine.tokens import TokenTable
from stt_engine.types import Seconds, Word

SECONDS_PER_STEP = 0.02
"""One position of the encoder: two frames of 10 ms."""

PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"
SENTENCE_ENDS = ".。!！?？"

_LONGEST_MEDIAN_S = 0.7
"""A word's usual length is taken to be no more than this, however slow the speaker."""


def words_from_alignment(
    table: TokenTable,
    language: str,
    tokens: Sequence[int],
    path: Sequence[tuple[int, int]],
    probabilities: Sequence[float],
    window_s: Seconds,
) -> tuple[Word, ...]:
    """Words of text `tokens` from a warping path of (token index, encoder position), ascending in both.

    The path has one token index more than `tokens`: <|endoftext|>, whose start is the last word's end.
    `probabilities` holds one per token. Returns no words when the path is too short to time any.
    """
    step_of_token: dict[int, int] = {}
    for token_index, step in path:
        step_of_token.setdefault(token_index, step)
    if not tokens or not step_of_token:
        return ()
    last_step = path[-1][1]
    pieces: list[Word] = []
    first = 0
    for text, ids in table.split_to_words(tokens, language):
        after = first + len(ids)
        pieces.append(
            Word(
                text=text,
                start_s=step_of_token.get(first, last_step) * SECONDS_PER_STEP,
                end_s=step_of_token.get(after, last_step) * SECONDS_PER_STEP,
                probability=float(sum(probabilities[first:after]) / len(ids)),
            )
        )
        first = after
    return build_words(pieces, window_s)


def build_words(pieces: Sequence[Word], window_s: Seconds) -> tuple[Word, ...]:
    """Words from the raw pieces of `TokenTable.split_to_words`: punctuation joined, stretched words cut.

    The result is in order, without overlap, within [0, window_s].
    """
    durations_s = [piece.end_s - piece.start_s for piece in pieces if piece.end_s > piece.start_s]
    usual_s = min(_LONGEST_MEDIAN_S, median(durations_s)) if durations_s else 0.0
    words = list(pieces)
    if durations_s:
        words = _cut_at_sentence_ends(words, longest_s=2 * usual_s)
    return _in_order(_join_punctuation(words), window_s)


def fit_to_segment(words: Sequence[Word], start_s: Seconds, end_s: Seconds) -> tuple[Word, ...]:
    """The words of one segment, the first and last cut where the segment's own time stamps lie within them.

    The alignment gives a pause to the word before or after it, and cannot tell which; the model's time stamps can. On
    the fixture's recordings sentences began 0.7 s early at the median without this, and within 0.01 s with it. A word
    that the alignment puts wholly outside is left without length at the segment's edge: no word lies outside its
    segment.
    """
    return tuple(
        replace(word, start_s=min(max(word.start_s, start_s), end_s), end_s=min(max(word.end_s, start_s), end_s))
        for word in words
    )


def _cut_at_sentence_ends(words: list[Word], longest_s: Seconds) -> list[Word]:
    """The path spends a pause on the mark before it or on the word after it; neither was spoken that long."""
    cut = list(words)
    for index in range(1, len(cut)):
        word = cut[index]
        if word.end_s - word.start_s <= longest_s:
            continue
        if word.text.strip() and word.text.strip() in SENTENCE_ENDS:
            cut[index] = replace(word, end_s=word.start_s + longest_s)
        elif (before := cut[index - 1].text.strip()) and before in SENTENCE_ENDS:
            cut[index] = replace(word, start_s=word.end_s - longest_s)
    return cut


def _join_punctuation(words: Sequence[Word]) -> list[Word]:
    """Opening marks go to the word after them, closing ones to the word before; times are the word's own."""
    opened: list[Word] = []
    for word in reversed(words):
        mark = word.text.strip()
        if opened and word.text.startswith(" ") and mark and mark in PREPENDED:
            opened[-1] = replace(opened[-1], text=word.text + opened[-1].text)
        else:
            opened.append(word)
    joined: list[Word] = []
    for word in reversed(opened):
        if joined and word.text and word.text in APPENDED and not joined[-1].text.endswith(" "):
            joined[-1] = replace(joined[-1], text=joined[-1].text + word.text)
        else:
            joined.append(word)
    return [word for word in joined if word.text.strip()]


def _in_order(words: Sequence[Word], window_s: Seconds) -> tuple[Word, ...]:
    ordered: list[Word] = []
    earliest_s = 0.0
    for word in words:
        start_s = min(max(word.start_s, earliest_s), window_s)
        end_s = min(max(word.end_s, start_s), window_s)
        ordered.append(replace(word, start_s=start_s, end_s=end_s))
        earliest_s = end_s
    return tuple(ordered)
