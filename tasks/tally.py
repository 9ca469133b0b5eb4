"""Figures of a night for its summary and its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from stt_engine.types import Seconds, Transcript


@dataclass(slots=True)
class Tally:
    audio_s: Seconds = 0.0
    speech_s: Seconds = 0.0
    languages: Counter[str] = field(default_factory=Counter)
    timings_s: Counter[str] = field(default_factory=Counter)
    """Wall seconds by stage, summed over workers."""

    def transcript(self, transcript: Transcript) -> None:
        self.audio_s += transcript.duration_s
        self.speech_s += transcript.speech_s
        if transcript.language:
            self.languages[transcript.language] += 1

    def spent(self, timings_s: Mapping[str, Seconds]) -> None:
        for stage, wall_s in timings_s.items():
            self.timings_s[stage] += wall_s  # type: ignore[assignment]  # typeshed: a Counter's counts are integers
