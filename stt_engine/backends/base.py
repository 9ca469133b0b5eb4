"""What a backend is: encode windows, name their languages, write their tokens, time their words.

A backend does arithmetic on a device batch and nothing else. Which chunks share a batch, whether a result is
believed, and what is decoded again is decided above it (`stt_engine.decoding`), once for all backends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from stt_engine.tokens import TokenTable
from stt_engine.types import BackendName, Samples, Seconds, Word
from stt_engine.windows import Encoded, WindowRequest, WindowTokens

USUAL_BATCH = 16
"""Windows in a device batch where nothing is known of the device's memory."""


class Backend(ABC):
    """One loaded model on one device. Not thread safe: one caller at a time."""

    name: ClassVar[BackendName]
    supports_hotwords: ClassVar[bool] = True
    supports_beam: ClassVar[bool] = True

    model: str
    """The name or directory it was loaded from."""
    device: str
    """cpu, cuda, cuda:N; never "auto"."""
    compute_type: str
    """What the weights are held in after loading, e.g. float16, int8_float32; never "auto"."""
    tokens: TokenTable
    mel_s: Seconds = 0.0
    """Wall seconds of `encode` so far in which the host made spectrograms."""

    @abstractmethod
    def encode(self, windows: Sequence[Samples], *, fit: bool = False) -> Encoded:
        """Mel spectrogram and encoder of float32 windows of 1 to 480,000 samples, each padded to 30 s.

        `fit`: padded to the longest of them and some silence instead (`mel.fitting_frames`).

        Raises DeviceOutOfMemory (the caller halves the batch) or DeviceFailed.
        """

    def stage(self, windows: Sequence[Samples]) -> None:  # noqa: B027 - a backend on the CPU has nothing to send ahead
        """Begin to bring windows to the device that the `encode` after the next call will ask for; returns at once."""

    def give_back(self) -> None:  # noqa: B027 - a backend that keeps nothing for reuse has nothing to give back
        """After a DeviceOutOfMemory: free what is kept for the next batch, before a smaller one is tried."""

    @property
    def encodes_ahead(self) -> bool:
        """Whether `encode` returns while the device is still at it, so that the next batch may be begun early."""
        return False

    @property
    def usual_batch(self) -> int:
        """How many windows a device batch should hold, where the user does not say."""
        return USUAL_BATCH

    @abstractmethod
    def select(self, encoded: Encoded, indices: Sequence[int]) -> Encoded:
        """Some windows of a batch, in the order given, without encoding again."""

    @abstractmethod
    def detect_languages(self, encoded: Encoded) -> list[Mapping[str, float]]:
        """Per window, the probability of every language code that the model knows; {"en": 1.0} where it knows one."""

    @abstractmethod
    def decode(
        self,
        encoded: Encoded,
        requests: Sequence[WindowRequest],
        *,
        temperature: float = 0.0,
        beam_size: int = 1,
        seed: int = 0,
    ) -> list[WindowTokens]:
        """Whisper's rules of decoding: blanks and non-speech tokens suppressed, time stamps in pairs and ascending,
        the first one at most 1 s where `requests[i].timestamps`. temperature > 0 samples, repeatably for a seed
        (where the library allows: ctranslate2's seed is per process).
        """

    @abstractmethod
    def align(
        self, encoded: Encoded, requests: Sequence[WindowRequest], tokens: Sequence[Sequence[int]]
    ) -> list[tuple[Word, ...]]:
        """Words of text tokens (no timestamp tokens) per window, timed by cross attention; relative to the window."""

    def close(self) -> None:  # noqa: B027 - not every backend holds something
        """Give the device's memory back. The backend is of no use afterwards."""
