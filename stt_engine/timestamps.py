"""From a window's tokens to stretches of text with times, relative to the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stt_engine.types import Seconds

TIMESTAMP_STEP_S = 0.02
"""One timestamp token is two mel frames of 10 ms, the encoder's stride."""


@dataclass(frozen=True, slots=True)
class TimedTokens:
    """Text tokens between two time stamps."""

    start_s: Seconds
    end_s: Seconds
    tokens: tuple[int, ...]
    closed: bool
    """False where the model wrote no closing stamp and the end is the window's."""


def timed_tokens(tokens: Sequence[int], *, timestamp_begin: int, duration_s: Seconds) -> list[TimedTokens]:
    """Cut a window's tokens at its time stamps.

    A stamp ends the text before it and begins the text after it; of two in a row the first ends, the second begins.
    Times are clamped to the window's audio, since the model also hears the padding up to 30 s, and never run backwards.
    Text that the model places wholly in the padding, after other text, is left out: nothing was said there.

    Args:
        tokens: text and timestamp tokens as decoded, without <|endoftext|>.
        timestamp_begin: the id of <|0.00|>.
        duration_s: the audio in the window before padding.
    """
    found: list[TimedTokens] = []
    start_s, text = 0.0, list[int]()

    def close(end_s: Seconds, closed: bool) -> None:
        if text and (start_s < duration_s or not found):
            begin_s = min(start_s, duration_s)
            found.append(TimedTokens(begin_s, max(begin_s, min(end_s, duration_s)), tuple(text), closed))
        text.clear()

    for token in tokens:
        if token >= timestamp_begin:
            time_s = (token - timestamp_begin) * TIMESTAMP_STEP_S
            close(time_s, closed=True)
            start_s = time_s
        else:
            text.append(token)
    close(duration_s, closed=False)
    return found
