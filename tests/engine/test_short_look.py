"""`window="fit"`: what is short is heard without padding to 30 s, what is doubtful then, in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from stt_engine.backends.base import Backend
from stt_engine.backends.faster_whisper import FasterWhisperBackend, load
from stt_engine.decoding import ChunkDecoder
from stt_engine.split import SplitOptions, split_audio
from stt_engine.types import Chunk, ChunkAudio, Region, Samples, TranscribeOptions
from stt_engine.windows import Encoded

FIT = TranscribeOptions(window="fit")


@pytest.fixture(scope="module")
def backend(fixture_model: Path) -> Iterator[Backend]:
    loaded = load(str(fixture_model / "ct2"), "cpu", "float32", cpu_threads=1)
    yield loaded
    loaded.close()


@pytest.fixture
def encodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """How many windows each call of the encoder had, and whether they were cut."""
    calls: list[tuple[int, bool]] = []
    encode = FasterWhisperBackend.encode

    def watched(self: FasterWhisperBackend, windows: Sequence[Samples], *, fit: bool = False) -> Encoded:
        calls.append((len(windows), fit))
        return encode(self, windows, fit=fit)

    monkeypatch.setattr(FasterWhisperBackend, "encode", watched)
    return calls


def chunks_of(path: Path, options: SplitOptions | None = None) -> list[ChunkAudio]:
    return list(split_audio(path, file_id=path.name, name=path.name, options=options))


def whole(path: Path) -> ChunkAudio:
    """The recording as one chunk that is said to be all speech."""
    from stt_engine.decode import open_audio

    samples = np.concatenate(list(open_audio(path, name=path.name)), axis=1)[0]
    n_samples = len(samples)
    chunk = Chunk(path.name, None, 0, 0, n_samples, regions=(Region(0, n_samples),))
    return ChunkAudio(chunk, samples)


def test_calls_are_heard_once_and_cut(backend: Backend, samples: Path, encodes: list[tuple[int, bool]]) -> None:
    chunks = [chunk for number in range(6) for chunk in chunks_of(samples / f"en_{number:03d}.flac")]
    full = ChunkDecoder(backend, TranscribeOptions()).transcribe(chunks)
    assert encodes == [(6, False)], "a file in one chunk votes on its language with what is decoded"
    encodes.clear()
    fitted = ChunkDecoder(backend, FIT).transcribe(chunks)
    assert encodes == [(6, True)]
    assert [[s.text for s in chunk.segments] for chunk in fitted] == [[s.text for s in c.segments] for c in full]
    assert [chunk.decodes for chunk in fitted] == [1] * 6


def test_what_is_doubtful_is_heard_in_full(backend: Backend, samples: Path, encodes: list[tuple[int, bool]]) -> None:
    chunks = [*chunks_of(samples / "en_000.flac"), whole(samples / "noise.flac")]
    speech, noise = ChunkDecoder(backend, FIT).transcribe(chunks)
    assert encodes[:2] == [(2, True), (1, False)]
    assert speech.decodes == 1 and speech.segments
    assert noise.decodes > 1 and not noise.segments


def test_long_windows_are_heard_in_full_at_once(
    backend: Backend, samples: Path, encodes: list[tuple[int, bool]]
) -> None:
    chunks = chunks_of(samples / "en_long0.flac")
    assert all(chunk.chunk.duration_s > 20 for chunk in chunks)
    fitted = ChunkDecoder(backend, FIT).transcribe(chunks)
    assert not any(fit for _, fit in encodes)
    assert fitted == ChunkDecoder(backend, TranscribeOptions()).transcribe(chunks)


def test_a_file_in_several_short_chunks_is_encoded_once(
    backend: Backend, samples: Path, encodes: list[tuple[int, bool]]
) -> None:
    from stt_engine.chunking import ChunkOptions

    options = SplitOptions(chunks=ChunkOptions(max_chunk_s=8.0))
    chunks = chunks_of(samples / "en_long0.flac", options)
    ChunkDecoder(backend, FIT, device_batch_windows=len(chunks)).transcribe(chunks)
    assert encodes[0] == (len(chunks), True)
    assert sum(n for n, fit in encodes if fit) == len(chunks), "the vote's states are decoded"
