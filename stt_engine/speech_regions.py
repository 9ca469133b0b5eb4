"""From speech probabilities, one a frame of 32 ms, to regions of speech; streaming, with run-length steps per event.

The rules are those of `faster_whisper.vad.get_speech_timestamps` (after silero-vad): a region opens at the first frame
at or above `threshold`, tolerates frames below `neg_threshold` for `min_silence_ms`, is dropped when it is not longer
than `min_speech_ms`, and is padded at both ends, neighbours sharing a silence that is too short for two pads.
Different is what happens to a region that will not end: it is cut at its quietest frame, not at the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

import numpy as np
import numpy.typing as npt

from stt_engine.errors import UsageError
from stt_engine.types import SAMPLE_RATE_HZ, Region, Samples, Seconds, samples_from_seconds

FRAME_SAMPLES = 512
"""What Silero's network sees at a time at 16 kHz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VadOptions:
    """When sound is speech. The defaults are for calls: short answers are kept, pauses inside a sentence bridged."""

    threshold: float = 0.5
    """A frame at or above it opens a region."""
    neg_threshold: float | None = None
    """A frame below it may close one; None means 0.15 under `threshold`, at least 0.01."""
    min_speech_ms: int = 64
    """Shorter regions are dropped: one or two frames are a click, three may be a word."""
    min_silence_ms: int = 300
    """Silence that ends a region. faster-whisper: 2,000, or 160 in its batched mode."""
    speech_pad_ms: int = 150
    """Added at both ends: the network hears a word's first consonant late. faster-whisper: 400."""
    max_speech_s: Seconds = inf
    """A longer region, padding included, is cut at its quietest frame. `split_audio` sets it to a chunk's length."""
    cut_window_s: Seconds = 10.0
    """How far back from the limit the quietest frame is looked for; at most half of `max_speech_s`."""

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0 or not 0.0 <= self.closing_threshold <= self.threshold:
            raise UsageError(f"vad: thresholds must be 0 <= neg_threshold <= threshold <= 1, threshold > 0: {self}")
        if min(self.min_speech_ms, self.min_silence_ms, self.speech_pad_ms) < 0 or self.cut_window_s <= 0:
            raise UsageError(f"vad: lengths must not be negative: {self}")
        if self.max_speech_s < 1.0 + 2 * self.speech_pad_ms / 1000:
            raise UsageError(f"vad: max_speech_s must be at least 1 s and two pads, not {self.max_speech_s:g}")

    @property
    def closing_threshold(self) -> float:
        return max(self.threshold - 0.15, 0.01) if self.neg_threshold is None else self.neg_threshold


class RegionTracker:
    """One stream's state between calls. All positions inside are frames, but for regions, which are samples."""

    def __init__(self, options: VadOptions) -> None:
        self._options = options
        self._pad = samples_from_seconds(options.speech_pad_ms / 1000)
        self._min_silence = ceil(options.min_silence_ms * SAMPLE_RATE_HZ / 1000 / FRAME_SAMPLES)
        self._min_speech_samples = options.min_speech_ms * SAMPLE_RATE_HZ / 1000
        self._longest = 2**62
        if options.max_speech_s != inf:
            self._longest = (samples_from_seconds(options.max_speech_s) - 2 * self._pad) // FRAME_SAMPLES
        window = ceil(options.cut_window_s * SAMPLE_RATE_HZ / FRAME_SAMPLES)
        self._window = max(1, min(window, self._longest // 2))
        self._n_frames = 0
        self._start: int | None = None
        """Where the open region began; None outside of one."""
        self._silence: int | None = None
        """Its first frame of silence after its last frame of speech."""
        self._continued = False
        """The open region goes on where another was cut."""
        self._waiting: tuple[int, int] | None = None
        """Closed region in samples, start padded, end not yet: that depends on where the next one starts."""
        self._floor = 0
        """End of the last region handed out."""
        self._loudness = np.zeros((2, 0), dtype=np.float32)
        """Probability and level of the last frames, for the quietest one."""

    @property
    def earliest_start_sample(self) -> int:
        """No region still to come starts before it."""
        if self._waiting is not None:
            return self._waiting[0]
        frame = self._n_frames if self._start is None else self._start
        return max(self._floor, frame * FRAME_SAMPLES - (0 if self._continued else self._pad))

    def feed(self, probabilities: npt.NDArray[np.float32], levels: Samples) -> list[Region]:
        """Both float32 `(n_frames,)`; levels are root mean squares of the same frames. Regions that are final now."""
        found: list[Region] = []
        first, end = self._n_frames, self._n_frames + len(probabilities)
        speech = first + np.flatnonzero(probabilities >= self._options.threshold)
        silence = first + np.flatnonzero(probabilities < self._options.closing_threshold)
        self._loudness = np.concatenate([self._loudness, np.stack([probabilities, levels])], axis=1)
        self._n_frames = end
        at = first
        while True:
            if self._start is None:
                at = _next_of(speech, at)
                if at >= end:
                    break
                self._start, self._silence, self._continued = at, None, False
                at += 1
                continue
            limit = min(end, self._start + self._longest)
            if self._silence is None:
                low = _next_of(silence, at)
                if low < limit:
                    self._silence = at = low
                    continue
            else:
                high = _next_of(speech, at)
                closing = _next_of(silence, max(at, self._silence + self._min_silence))
                if min(high, closing) < limit:
                    if closing < high:
                        found += self._close(self._silence * FRAME_SAMPLES)
                        at = closing + 1
                    else:
                        self._silence, at = None, high + 1
                    continue
            if limit == end:
                break
            found += self._cut(limit)
            at = limit
        self._loudness = self._loudness[:, -self._window - 1 :]
        return found + self._flush_if_alone()

    def finish(self, n_samples: int) -> list[Region]:
        """The rest, at the end of a stream of `n_samples`."""
        found = []
        if self._start is not None:
            found += self._close(n_samples)
        if self._waiting is not None:
            found.append(Region(self._waiting[0], min(n_samples, self._waiting[1] + self._pad)))
            self._waiting = None
        return found

    def _close(self, end_sample: int) -> list[Region]:
        """The open region ends at `end_sample`; the one before it is final, since where its pad must stop is known."""
        assert self._start is not None
        start_sample, continued = self._start * FRAME_SAMPLES, self._continued
        self._start, self._silence, self._continued = None, None, False
        length = end_sample - start_sample
        if length <= 0 or not (continued or length > self._min_speech_samples):
            return []
        found = []
        if continued:
            padded_start = start_sample
        elif self._waiting is None:
            padded_start = max(self._floor, start_sample - self._pad)
        else:
            pad = min(self._pad, (start_sample - self._waiting[1]) // 2)
            found.append(self._hand_out(self._waiting[0], self._waiting[1] + pad))
            padded_start = start_sample - pad
        self._waiting = (padded_start, end_sample)
        return found

    def _cut(self, limit: int) -> list[Region]:
        """Ends the open region at its quietest frame before `limit` and opens the next one there, none lost between."""
        assert self._start is not None
        oldest = self._n_frames - self._loudness.shape[1]
        lowest = max(self._start + 1, limit - self._window, oldest)
        probability, level = self._loudness[:, lowest - oldest : limit - oldest]
        # Silero says 1.0 all through fluent speech, where only the level shows the gaps between words, and falls in a
        # pause full of noise, where only it shows the pause: so both count, each in [0, 1].
        score = _smoothed(probability) + _smoothed(level / max(float(level.max()), 1e-9))
        cut = limit - 1 - int(np.argmin(score[::-1]))
        if self._silence is not None and cut >= self._silence:
            return self._close(self._silence * FRAME_SAMPLES)
        silence = self._silence
        found = self._close(cut * FRAME_SAMPLES)
        if self._waiting is not None:
            found.append(self._hand_out(*self._waiting))
            self._waiting = None
        self._start, self._silence, self._continued = cut, silence, True
        return found

    def _flush_if_alone(self) -> list[Region]:
        if self._waiting is None:
            return []
        next_start = (self._n_frames if self._start is None else self._start) * FRAME_SAMPLES
        start, end = self._waiting
        if next_start - end < 2 * self._pad:
            return []
        self._waiting = None
        return [self._hand_out(start, end + self._pad)]

    def _hand_out(self, start_sample: int, end_sample: int) -> Region:
        self._floor = end_sample
        return Region(start_sample, end_sample)


def _next_of(ascending: npt.NDArray[np.intp], at: int) -> int:
    """The first entry that is not below `at`; far away where there is none."""
    index = int(np.searchsorted(ascending, at))
    return int(ascending[index]) if index < len(ascending) else 2**62


def _smoothed(values: Samples) -> Samples:
    """Mean over three frames, about the length of the shortest gap between words."""
    padded = np.pad(values, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / np.float32(3)
