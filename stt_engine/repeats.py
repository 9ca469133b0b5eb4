"""A text that repeats itself: a loop of the model's, or a speaker who says things twice?

Whisper's answer is to draw other texts at five temperatures, which costs as much as thirty windows and gives none that
repeats itself less when the speaker did. The two halves of the window, decoded by themselves, tell the two apart: a
loop lives on what the decoder has written so far, and does not survive another beginning.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from stt_engine.second_looks import Window, part_of
from stt_engine.types import Region


def halves(window: Window) -> tuple[Window, Window] | None:
    """The window cut in the silence that is nearest to its middle; None where it has none."""
    gaps = [
        (left.end_sample + right.start_sample) // 2
        for left, right in zip(window.regions, window.regions[1:], strict=False)
    ]
    if not gaps:
        return None
    middle, end = len(window.samples) // 2, len(window.samples)
    cut = min(gaps, key=lambda gap: abs(gap - middle))
    before = [region for region in window.regions if region.end_sample <= cut]
    after = [region for region in window.regions if region.start_sample >= cut]
    return part_of(window, Region(0, cut), before), part_of(window, Region(cut, end), after)


def say_the_same(whole: str, parts: Sequence[str]) -> bool:
    """Letter by letter, whatever the case, the spaces and the punctuation."""
    return bool(_letters(whole)) and _letters(whole) == _letters("".join(parts))


def _letters(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
