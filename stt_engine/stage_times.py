"""Where the time of transcribing goes: mel, encode, language, tokens, words; what is left is the making of texts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from stt_engine.backends.base import Backend
from stt_engine.types import Samples, Seconds
from stt_engine.windows import Encoded


@dataclass(slots=True)
class StageTimes:
    """Wall seconds by stage, as the host sees them.

    A GPU is given its work and waited for later: there, part of what the encoder takes is waited for under "tokens",
    and the mel is made on the device, as part of "encode".
    """

    seconds: dict[str, Seconds] = field(default_factory=dict)

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, time.perf_counter() - began_s)

    def encode(self, backend: Backend, windows: Sequence[Samples], *, fit: bool = False) -> Encoded:
        """As `Backend.encode`, which says itself what the mel took."""
        began_s, mel_before_s = time.perf_counter(), backend.mel_s
        try:
            return backend.encode(windows, fit=fit)
        finally:
            mel_s = backend.mel_s - mel_before_s
            self._add("mel", mel_s)
            self._add("encode", time.perf_counter() - began_s - mel_s)

    def _add(self, stage: str, spent_s: Seconds) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + spent_s
