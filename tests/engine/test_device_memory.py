"""A device that is too small for the batch: the batch is halved, the rest of it at once cut to what fits, and nothing
of what did not fit is kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stt_engine.backends.base import Backend
from stt_engine.backends.fake import FakeBackend
from stt_engine.decoding import ChunkDecoder
from stt_engine.errors import DeviceOutOfMemory
from stt_engine.loading import load_backend
from stt_engine.split import split_audio
from stt_engine.types import ChunkAudio, Samples, TranscribeOptions
from stt_engine.windows import Encoded, WindowTokens

ENGLISH = TranscribeOptions(language="en")


@pytest.fixture(scope="module")
def chunks(samples: Path) -> list[ChunkAudio]:
    """One of each of eight files."""
    paths = [samples / f"en_{number:03d}.flac" for number in range(8)]
    return [next(iter(split_audio(path, file_id=path.stem, name=path.name))) for path in paths]


@pytest.mark.parametrize("name", ["faster-whisper", "transformers", "openai-whisper"])
def test_a_batch_that_does_not_fit_is_halved_and_says_the_same(
    name: str, chunks: list[ChunkAudio], fixture_model: Path
) -> None:
    """By the exceptions that the libraries raise on a full GPU, from where they raise them."""
    backend = load_backend(name, str(fixture_model), device="cpu", cpu_threads=1)
    options = TranscribeOptions()
    roomy = ChunkDecoder(backend, options, device_batch_windows=8).transcribe(chunks)
    sizes = shrink(backend, most_windows=2)
    decoder = ChunkDecoder(backend, options, device_batch_windows=8)
    small = decoder.transcribe(chunks)
    assert sizes[:6] == [8, 4, 2, 2, 2, 2]
    assert max(sizes[2:]) == decoder.device_batch_windows == 2, "it was not remembered"
    assert [said(chunk) for chunk in small] == [said(chunk) for chunk in roomy]


def said(transcript: Any) -> str:
    return "".join(segment.text for segment in transcript.segments)


def shrink(backend: Any, *, most_windows: int) -> list[int]:
    """Makes its forward pass refuse more windows; the list grows by the size of each one that is asked for."""
    sizes: list[int] = []

    def refuse(n_windows: int, error: Exception) -> None:
        sizes.append(n_windows)
        if n_windows > most_windows:
            raise error

    if backend.name == "faster-whisper":
        whisper = backend._whisper
        backend.device = "cuda:0"  # whose batches are encoded whole; a CPU takes a window at a time

        class SmallDevice:
            def encode(self, features: Any) -> Any:
                refuse(features.shape[0], RuntimeError("CUDA failed with error out of memory"))
                return whisper.encode(features)

            def __getattr__(self, name: str) -> Any:
                return getattr(whisper, name)

        backend._whisper = SmallDevice()
        return sizes
    import torch

    encode = backend._encode

    def small(mel: Any) -> Any:
        refuse(len(mel), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
        return encode(mel)

    backend._encode = small
    return sizes


class State:
    """Stands for tensors on a device."""


class FillsUpInDecoding(FakeBackend):
    """Encodes anything, has no room for decoding more than two windows, and knows what is still alive of it all."""

    def __init__(self) -> None:
        super().__init__()
        self.alive_when_encoding: list[int] = []
        self._made: list[weakref.ref[State]] = []

    def encode(self, windows: Sequence[Samples], *, fit: bool = False) -> Encoded:
        gc.collect(0)
        self.alive_when_encoding.append(sum(made() is not None for made in self._made))
        encoded = super().encode(windows, fit=fit)
        state = State()
        self._made.append(weakref.ref(state))
        return Encoded(states=_Held(encoded.states, state), n_windows=len(windows), n_samples=encoded.n_samples)

    def decode(self, encoded: Encoded, requests: Any, **how: Any) -> list[WindowTokens]:
        if encoded.n_windows > 2:
            raise DeviceOutOfMemory("full")
        return super().decode(encoded, requests, **how)


class _Held(tuple[Any, ...]):
    """The fake's states, with something that a weak reference can watch."""

    state: State

    def __new__(cls, states: Sequence[Any], state: State) -> _Held:
        made = super().__new__(cls, states)
        made.state = state
        return made


@pytest.mark.parametrize("language", ["en", None])
def test_nothing_of_what_did_not_fit_is_on_the_device_while_the_halves_are(
    language: str | None, chunks: list[ChunkAudio]
) -> None:
    backend = FillsUpInDecoding()
    heard = ChunkDecoder(backend, TranscribeOptions(language=language), device_batch_windows=8).transcribe(chunks)
    assert len(heard) == 8
    assert backend.alive_when_encoding == [0, 0, 0, 0, 0, 0]


def test_a_window_that_does_not_fit_alone_is_said(chunks: list[ChunkAudio]) -> None:
    backend: Backend = FakeBackend(max_device_batch=0)
    with pytest.raises(DeviceOutOfMemory, match=r"one window of .* does not fit"):
        ChunkDecoder(backend, ENGLISH, device_batch_windows=8).transcribe(chunks)
