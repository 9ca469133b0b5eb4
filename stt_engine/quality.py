"""Is a decoded window to be believed? Whisper's own measures, a check for loops, and one for speech left behind."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import eq

from stt_engine.types import Region, Seconds, TranscribeOptions, samples_from_seconds

FLAGS: dict[str, str] = {
    "repetition": "the text repeats itself: compression ratio over the threshold, or one phrase four times in a row; "
    "also when heard in halves, where there is a silence to cut at",
    "invented_phrase": "the whole segment is a phrase that Whisper is known to write over silence",
    "low_confidence": "the window's mean log probability stayed under the threshold at every temperature",
    "uncovered_speech": "speech is left without text, even after decoding it again where that could help",
    "open_end": "the model wrote no closing time stamp; the end is that of the speech",
}
"""Every flag that a segment or a chunk may carry, and what it means."""

_TIMES_IN_A_ROW = 4
_LONGEST_PHRASE, _SHORT_PHRASE = 80, 12
"""Characters."""
_LONG_LOOP_WORDS = 8


def compression_ratio(text: str) -> float:
    """len(text) / len(zlib(text)) in UTF-8 bytes, after openai-whisper's `utils.py`; 0 for no text."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded)) if encoded else 0.0


def is_loop(text: str) -> bool:
    """One phrase of up to 80 characters four times in a row, which short texts hide from the compression ratio."""
    words = text.split()
    often = [count for count in Counter(words).values() if count >= _TIMES_IN_A_ROW]
    if not often:
        return False
    for n_words in range(1, sum(often) // _TIMES_IN_A_ROW + 1):
        if sum(map(eq, words, words[n_words:])) < (_TIMES_IN_A_ROW - 1) * n_words:
            continue
        run = 0  # of words that are the one `n_words` before them
        for place, (before, word) in enumerate(zip(words, words[n_words:], strict=False), start=n_words):
            run = run + 1 if word == before else 0
            if run < (_TIMES_IN_A_ROW - 1) * n_words:
                continue
            length = len(" ".join(words[place - n_words + 1 : place + 1]))
            # Digits read out repeat for good reason: a loop of one short word is one only when it is long.
            if length <= _LONGEST_PHRASE and (length > _SHORT_PHRASE or run + n_words >= _LONG_LOOP_WORDS):
                return True
    return False


def is_silence(*, no_speech_prob: float, avg_logprob: float, options: TranscribeOptions) -> bool:
    """Whisper's no-speech gate: it hears no speech AND is unsure of the text. Section 4.5 of the paper."""
    unsure = options.logprob_threshold is None or avg_logprob < options.logprob_threshold
    return hears_no_speech(no_speech_prob, options) and unsure


def hears_no_speech(no_speech_prob: float, options: TranscribeOptions) -> bool:
    """The first half of the gate, which alone decides where the model wrote no text."""
    return options.no_speech_threshold is not None and no_speech_prob > options.no_speech_threshold


def repeats_itself(text: str, options: TranscribeOptions) -> bool:
    threshold = options.compression_ratio_threshold
    return threshold is not None and (compression_ratio(text) > threshold or is_loop(text))


def is_unsure(avg_logprob: float, options: TranscribeOptions) -> bool:
    return options.logprob_threshold is not None and avg_logprob < options.logprob_threshold


def uncovered(
    regions: Sequence[Region], covered_s: Iterable[tuple[Seconds, Seconds]], *, longer_than_s: Seconds
) -> list[Region]:
    """Stretches of speech that lie under no text, in the same time as `regions`.

    Args:
        regions: speech, ascending.
        covered_s: where text lies, as start and end in seconds.
        longer_than_s: shorter leftovers are breath, not loss.
    """
    spans = _union(covered_s)
    left: list[Region] = []
    first = 0
    for region in regions:
        while first < len(spans) and spans[first][1] <= region.start_sample:
            first += 1
        position = region.start_sample
        for start, end in itertools.islice(spans, first, None):
            if start >= region.end_sample:
                break
            if start > position:
                left.append(Region(position, start))
            position = max(position, end)
        if position < region.end_sample:
            left.append(Region(position, region.end_sample))
    return [region for region in left if region.duration_s > longer_than_s]


def within(regions: Sequence[Region], span: Region) -> list[Region]:
    """The parts of `regions` inside `span`."""
    clipped = ((max(r.start_sample, span.start_sample), min(r.end_sample, span.end_sample)) for r in regions)
    return [Region(start, end) for start, end in clipped if start < end]


def _union(spans_s: Iterable[tuple[Seconds, Seconds]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted((samples_from_seconds(start), samples_from_seconds(end)) for start, end in spans_s):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def covered_seconds(regions: Sequence[Region], spans_s: Iterable[tuple[Seconds, Seconds]]) -> Seconds:
    """Seconds of speech under text: the length of the intersection of `regions` with the union of `spans_s`."""
    speech_s = sum(region.duration_s for region in regions)
    return speech_s - sum(region.duration_s for region in uncovered(regions, spans_s, longer_than_s=0.0))
