"""A backend without a model, for tests of plumbing: what it says is computed from the samples it was given.

`describe(samples)` is the text of a window, so that a test can say which samples must have arrived where. It is the
same before and after the spool's int16. Nothing here hears anything.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stt_engine.backends.base import Backend
from stt_engine.errors import DeviceOutOfMemory
from stt_engine.tokens import SECONDS_PER_TIMESTAMP, TIMESTAMP_COUNT, TokenTable
from stt_engine.types import BackendName, Samples, Word, seconds_from_samples
from stt_engine.windows import Encoded, WindowRequest, WindowTokens

SILENCE_PEAK = 0.001
"""Windows that stay below this say nothing."""
LANGUAGE_OFFSET = 0.01
"""A window whose mean is above it counts as Korean, below its negative as Japanese, else as English."""

_LANGUAGES = ("en", "ko", "ja", "zh", "de", "es")


@dataclass(frozen=True, slots=True)
class _Heard:
    text: str
    language: str
    n_samples: int


class _Utf8Codec:
    """Token ids are the bytes of UTF-8."""

    def encode(self, text: str) -> Sequence[int]:
        return tuple(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


def fake_tokens() -> TokenTable:
    eot, sot = 256, 257
    language_ids = {code: sot + 1 + index for index, code in enumerate(_LANGUAGES)}
    translate = sot + 1 + len(_LANGUAGES)
    return TokenTable(
        eot=eot,
        sot=sot,
        translate=translate,
        transcribe=translate + 1,
        start_of_prev=translate + 2,
        no_speech=translate + 3,
        no_timestamps=translate + 4,
        timestamp_begin=translate + 5,
        language_ids=language_ids,
        multilingual=True,
        suppressed=(),
        codec=_Utf8Codec(),
    )


def describe(samples: Samples) -> str:
    """Three words for what is in the samples: how loud, how long, and a checksum; empty for silence.

    For instance "loud 41920samples 0f3a9c1e". The checksum is of the samples rounded to 16 bits.
    """
    if peak(samples) < SILENCE_PEAK:
        return ""
    loudness_rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    loudness = "quiet" if loudness_rms < 0.01 else "normal" if loudness_rms < 0.2 else "loud"
    pcm = np.clip(np.rint(samples.astype(np.float64) * 32_768), -32_768, 32_767).astype("<i2")
    return f"{loudness} {len(samples)}samples {zlib.crc32(pcm.tobytes()):08x}"


def peak(samples: Samples) -> float:
    return float(np.max(np.abs(samples)))


def spoken_language(samples: Samples) -> str:
    mean = float(np.mean(samples, dtype=np.float64))
    return "ko" if mean > LANGUAGE_OFFSET else "ja" if mean < -LANGUAGE_OFFSET else "en"


class FakeBackend(Backend):
    """Says `describe(samples)`, with the language and task asked for in front where they are not en and transcribe.

    Args:
        max_device_batch: more windows than this in one `encode` raise DeviceOutOfMemory.
        seconds_per_window: how long `encode` takes over each window.
    """

    name: ClassVar[BackendName] = "fake"

    def __init__(
        self,
        *,
        model: str = "fake",
        device: str = "cpu",
        max_device_batch: int | None = None,
        seconds_per_window: float = 0.0,
    ) -> None:
        self.model = model
        self.device = device
        self.compute_type = "float32"
        self.tokens = fake_tokens()
        self.max_device_batch = max_device_batch
        self.seconds_per_window = seconds_per_window

    def encode(self, windows: Sequence[Samples], *, fit: bool = False) -> Encoded:
        if self.max_device_batch is not None and len(windows) > self.max_device_batch:
            raise DeviceOutOfMemory(f"{len(windows)} windows, but {self.max_device_batch} fit: use a smaller batch")
        if self.seconds_per_window:
            time.sleep(self.seconds_per_window * len(windows))
        states = tuple(_Heard(describe(w), spoken_language(w), len(w)) for w in windows)
        return Encoded(states=states, n_windows=len(windows), n_samples=tuple(len(w) for w in windows))

    def select(self, encoded: Encoded, indices: Sequence[int]) -> Encoded:
        states = tuple(encoded.states[index] for index in indices)
        return Encoded(states=states, n_windows=len(states), n_samples=tuple(heard.n_samples for heard in states))

    def detect_languages(self, encoded: Encoded) -> list[Mapping[str, float]]:
        others = len(_LANGUAGES) - 1
        return [
            {code: 0.95 if code == heard.language else 0.05 / others for code in _LANGUAGES} for heard in encoded.states
        ]

    def decode(
        self,
        encoded: Encoded,
        requests: Sequence[WindowRequest],
        *,
        temperature: float = 0.0,
        beam_size: int = 1,
        seed: int = 0,
    ) -> list[WindowTokens]:
        return [self._say(heard, request) for heard, request in zip(encoded.states, requests, strict=True)]

    def align(
        self, encoded: Encoded, requests: Sequence[WindowRequest], tokens: Sequence[Sequence[int]]
    ) -> list[tuple[Word, ...]]:
        """The words share the window's time evenly."""
        aligned: list[tuple[Word, ...]] = []
        for heard, request, ids in zip(encoded.states, requests, tokens, strict=True):
            words = self.tokens.split_to_words(ids, request.language)
            step_s = seconds_from_samples(heard.n_samples) / max(1, len(words))
            aligned.append(
                tuple(Word(text, index * step_s, (index + 1) * step_s, 0.9) for index, (text, _) in enumerate(words))
            )
        return aligned

    def _say(self, heard: _Heard, request: WindowRequest) -> WindowTokens:
        prompt = self.tokens.prompt(request)  # raises UnknownLanguage as any backend does
        assert prompt
        if not heard.text:
            return WindowTokens(tokens=(), avg_logprob=-1.5, no_speech_prob=0.99)
        words = [heard.text]
        if request.language != "en":
            words.insert(0, request.language)
        if request.task == "translate":
            words.insert(0, "translated")
        ids = self.tokens.encode(" " + " ".join(words))
        if request.timestamps:
            end_s = seconds_from_samples(heard.n_samples)
            last = min(TIMESTAMP_COUNT - 1, int(end_s / SECONDS_PER_TIMESTAMP))
            begin = self.tokens.timestamp_begin
            ids = (begin, *ids, begin + last)
        return WindowTokens(tokens=ids, avg_logprob=-0.1, no_speech_prob=0.01)


def load(model: str, device: str, compute_type: str, *, cpu_threads: int = 0) -> FakeBackend:
    """A fake of any name on any device; nothing is read."""
    return FakeBackend(model=model, device="cpu" if device == "auto" else device)
