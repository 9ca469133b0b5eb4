"""A text that repeats itself: a loop of the model's, or a speaker who says things twice?

Whisper's answer is to draw other texts at up to five temperatures, which costs as much as thirty windows, and which
where the speaker did repeat himself gives the same again or something worse. The window is heard in two halves instead:
a loop lives on what the decoder has written so far and seldom survives another beginning, and half of what a speaker
repeats is below the threshold. A half that repeats itself still is decoded at other temperatures, alone.
"""

from __future__ import annotations

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
