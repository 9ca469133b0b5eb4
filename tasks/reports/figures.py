"""The figures of a night while it goes on, in memory that does not grow with the night."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from stt_engine.types import Seconds, Transcript
from tasks.night_terms import FileFinished
from tasks.run_record import Failure
from tasks.types import FileFailure, NightPlan

BINS = 20
"""Of a distribution over [0, 1]."""
MOST_POINTS = 400
"""Of the throughput over time; beyond, every other point goes and half as many are taken."""
MOST_FAILURES = 1000
"""Named one by one in a report; the others are counted, and stand in the tables like all."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How much was done so many seconds after the plan stood."""

    elapsed_s: Seconds
    audio_s: Seconds


@dataclass(frozen=True, slots=True)
class Figures:
    """A night so far, at one moment."""

    files: int
    """Planned."""
    finished: int
    """Transcribed, failed, or left for the next run."""
    failed: int
    audio_s: Seconds
    elapsed_s: Seconds
    bytes_finished: int
    bytes_planned: int
    throughput: tuple[Moment, ...]
    """Ascending; the last one is now."""
    speech_shares: tuple[int, ...]
    """Files by the share of speech in them: `BINS` equal bins of [0, 1]."""
    confidences: tuple[int, ...]
    """Files by their mean confidence, exp(avg_logprob) weighted by the segments' seconds; likewise. Files without text
    are in no bin."""
    failures: tuple[Failure, ...]
    """Those that have failed for good, the first `MOST_FAILURES`."""

    @property
    def rtfx(self) -> float:
        """Audio seconds per wall second."""
        return self.audio_s / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def share(self) -> float:
        """Of the work, by bytes: how long the files are is known only when they are open."""
        if not self.bytes_planned:
            return self.finished / self.files if self.files else 1.0
        return self.bytes_finished / self.bytes_planned

    @property
    def left_s(self) -> Seconds | None:
        """Until the end, at the pace so far; None before there is a pace."""
        return self.elapsed_s * (1 - self.share) / self.share if self.share > 0 else None


class NightFigures:
    """Hears each file's end in the night's thread; may be looked at from any other."""

    def __init__(self, plan: NightPlan, *, clock: Callable[[], Seconds] = time.monotonic) -> None:
        self._run_id = plan.run_id
        self._files = len(plan.files)
        self._bytes_planned = sum(file.size_bytes for file in plan.files)
        self._clock, self._began = clock, clock()
        self._lock = threading.Lock()
        self._finished = self._failed = self._bytes_finished = 0
        self._audio_s: Seconds = 0.0
        self._points: list[Moment] = []
        self._every_s: Seconds = 0.0
        self._speech_shares, self._confidences = [0] * BINS, [0] * BINS
        self._failures: list[Failure] = []

    def hear(self, finished: FileFinished) -> None:
        file, outcome = finished.file, finished.outcome
        with self._lock:
            self._finished += 1
            self._bytes_finished += file.size_bytes
            if isinstance(outcome, FileFailure):
                self._failed += 1
            elif outcome.transcript is None:
                self._failed += 1
                if len(self._failures) < MOST_FAILURES:
                    error_type, message = outcome.error_type or "", outcome.error_message or ""
                    now = datetime.now(UTC)
                    self._failures.append(
                        Failure(file.uri, file.version, error_type, message, False, self._run_id, now)
                    )
            else:
                self._transcribed(outcome.transcript)

    def _transcribed(self, transcript: Transcript) -> None:
        self._audio_s += transcript.duration_s
        if transcript.duration_s > 0:
            channels = {segment.channel for segment in transcript.segments}
            heard_s = transcript.duration_s * max(1, len(channels))  # speech is summed over channels that are apart
            self._speech_shares[_bin(transcript.speech_s / heard_s)] += 1
        confidence = mean_confidence(transcript)
        if confidence is not None:
            self._confidences[_bin(confidence)] += 1
        elapsed_s = self._clock() - self._began
        if not self._points or elapsed_s - self._points[-1].elapsed_s >= self._every_s:
            self._points.append(Moment(elapsed_s, self._audio_s))
        if len(self._points) >= MOST_POINTS:
            del self._points[::2]
            self._every_s = 2 * elapsed_s / MOST_POINTS

    def look(self) -> Figures:
        with self._lock:
            elapsed_s = self._clock() - self._began
            return Figures(
                files=self._files,
                finished=self._finished,
                failed=self._failed,
                audio_s=self._audio_s,
                elapsed_s=elapsed_s,
                bytes_finished=self._bytes_finished,
                bytes_planned=self._bytes_planned,
                throughput=(*self._points, Moment(elapsed_s, self._audio_s)),
                speech_shares=tuple(self._speech_shares),
                confidences=tuple(self._confidences),
                failures=tuple(self._failures),
            )


def mean_confidence(transcript: Transcript) -> float | None:
    """exp(avg_logprob), the geometric mean of the tokens' probabilities, weighted by seconds; None without text."""
    weighted = [(max(s.end_s - s.start_s, 0.01), math.exp(min(0.0, s.avg_logprob))) for s in transcript.segments]
    total_s = sum(weight_s for weight_s, _ in weighted)
    return sum(weight_s * confidence for weight_s, confidence in weighted) / total_s if weighted else None


def _bin(share: float) -> int:
    return min(BINS - 1, max(0, int(share * BINS)))
