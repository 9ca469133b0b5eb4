"""The next batch is encoded while the host is busy with this one, and nothing else changes by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stt_engine.backends.fake import FakeBackend
from stt_engine.decoding import ChunkDecoder
from stt_engine.errors import DeviceOutOfMemory
from stt_engine.types import ChunkAudio, Samples, TranscribeOptions
from stt_engine.windows import Encoded, WindowTokens
from tests.engine.test_device_memory import chunks  # noqa: F401 - a fixture

KOREAN = TranscribeOptions(language="ko")


class Ahead(FakeBackend):
    """Says what was asked of it, in order: s(tage), e(ncode) and d(ecode), with the numbers of windows."""

    def __init__(self, *, most_alive: int = 100) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.most_alive = most_alive
        self.decoding = False

    @property
    def encodes_ahead(self) -> bool:
        return True

    def stage(self, windows: Sequence[Samples]) -> None:
        self.asked.append(f"s{len(windows)}")

    def encode(self, windows: Sequence[Samples], *, fit: bool = False) -> Encoded:
        if self.asked and self.asked[-1].startswith("d") and len(windows) > self.most_alive:
            self.asked.append("full")
            raise DeviceOutOfMemory("full")
        self.asked.append(f"e{len(windows)}")
        return super().encode(windows, fit=fit)

    def decode(self, encoded: Encoded, requests: Any, **how: Any) -> list[WindowTokens]:
        self.asked.append(f"d{encoded.n_windows}")
        return super().decode(encoded, requests, **how)


@pytest.fixture
def wanted(chunks: list[ChunkAudio]) -> list[str]:  # noqa: F811
    heard = ChunkDecoder(FakeBackend(), KOREAN, device_batch_windows=3).transcribe(chunks)
    return [transcript.segments[0].text for transcript in heard]


def test_the_next_batch_is_encoded_between_tokens_and_texts(
    chunks: list[ChunkAudio],  # noqa: F811
    wanted: list[str],
) -> None:
    backend = Ahead()
    heard = ChunkDecoder(backend, KOREAN, device_batch_windows=3).transcribe(chunks)
    assert [transcript.segments[0].text for transcript in heard] == wanted
    assert backend.asked == ["s3", "s3", "e3", "d3", "e3", "s2", "d3", "e2", "d2"]


def test_where_two_batches_do_not_fit_each_comes_in_its_turn(
    chunks: list[ChunkAudio],  # noqa: F811
    wanted: list[str],
) -> None:
    backend = Ahead(most_alive=2)
    decoder = ChunkDecoder(backend, KOREAN, device_batch_windows=3)
    heard = decoder.transcribe(chunks)
    assert [transcript.segments[0].text for transcript in heard] == wanted
    assert decoder.device_batch_windows == 3, "what was tried early is no reason to make smaller batches"
    assert backend.asked == ["s3", "s3", "e3", "d3", "full", "s3", "s2", "e3", "d3", "e2", "d2"]
