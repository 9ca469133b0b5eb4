"""The promised error rates, with each backend, on speech that the built-in model was never trained on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import jiwer
import pytest

from stt_engine import Transcript, WhisperSTT
from stt_engine.decoding import ChunkDecoder
from stt_engine.loading import AUTO_ORDER
from stt_engine.split import split_audio
from stt_engine.types import ChunkAudio, Timestamps, TranscribeOptions, WindowLength
from tests.long_form import long

ONE_OF_TORCH = [*AUTO_ORDER[:-1], pytest.param(AUTO_ORDER[-1], marks=long)]
"""The two on torch share their decoder; that they write the same is in test_torch_backends.py, in every run."""


@dataclass
class Heard:
    """References and transcripts of one language."""

    truth: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def add(self, truth: str, said: str) -> None:
        self.truth.append(truth)
        self.said.append(" ".join(said.split()))

    @property
    def wer(self) -> float:
        return float(jiwer.wer(self.truth, self.said))

    @property
    def cer(self) -> float:
        """Without spaces, as is usual for Korean."""
        return float(jiwer.cer([t.replace(" ", "") for t in self.truth], [s.replace(" ", "") for s in self.said]))


def references(folder: Path, kind: str) -> list[dict[str, object]]:
    lines = (folder / "reference.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


@pytest.fixture(scope="module", params=AUTO_ORDER)
def stt(request: pytest.FixtureRequest) -> Iterator[WhisperSTT]:
    loaded = WhisperSTT("fixture", device="cpu", compute_type="float32", backend=request.param, cpu_threads=1)
    yield loaded
    loaded.close()


def listen(
    stt: WhisperSTT, folder: Path, kind: str, timestamps: Timestamps = "segment"
) -> tuple[dict[str, Heard], list[tuple[dict, Transcript]]]:  # type: ignore[type-arg]
    heard = {"en": Heard(), "ko": Heard()}
    found = []
    for row in references(folder, kind):
        transcript = stt.transcribe(folder / str(row["file"]), timestamps=timestamps)
        assert transcript.language == row["language"], row["file"]
        heard[str(row["language"])].add(str(row["text"]), transcript.text)
        found.append((row, transcript))
    return heard, found


def test_sentences(stt: WhisperSTT, samples: Path) -> None:
    heard, found = listen(stt, samples, "sentence")
    assert len(found) == 30
    assert heard["en"].wer <= 0.03
    assert heard["ko"].cer <= 0.04


def segment_starts_s(transcript: Transcript) -> list[float]:
    return [segment.start_s for segment in transcript.segments]


def first_word_starts_s(transcript: Transcript) -> list[float]:
    return [segment.words[0].start_s for segment in transcript.segments]


@pytest.mark.parametrize("stt", ONE_OF_TORCH, indirect=True)
def test_recordings_of_many_sentences(stt: WhisperSTT, samples: Path) -> None:
    heard, found = listen(stt, samples, "recording", timestamps="word")
    assert len(found) == 6
    assert heard["en"].wer <= 0.07
    assert heard["ko"].cer <= 0.03
    for starts_s in (segment_starts_s, first_word_starts_s):
        errors_s = [
            min(abs(start_s - true["start"]) for start_s in starts_s(transcript))
            for row, transcript in found
            for true in row["segments"]
        ]
        assert len(errors_s) > 100
        assert statistics.median(errors_s) <= 0.3
    for _, transcript in found:
        assert segment_starts_s(transcript) == sorted(segment_starts_s(transcript))
        assert 0.5 * transcript.speech_s < transcript.covered_s <= transcript.speech_s + 0.01
        for segment in transcript.segments:
            assert "".join(word.text for word in segment.words) == segment.text
            assert all(word.start_s <= word.end_s for word in segment.words)
        words = transcript.words
        assert all(earlier.start_s <= later.start_s for earlier, later in pairwise(words))


@pytest.mark.parametrize("stt", ONE_OF_TORCH, indirect=True)
def test_without_time_stamps_as_much_is_heard(stt: WhisperSTT, samples: Path) -> None:
    """Once decoded without them: 22 % of the English words and 25 % of the Korean letters went wrong, unnoticed."""
    heard, found = listen(stt, samples, "recording", timestamps="none")
    assert heard["en"].wer <= 0.07
    assert heard["ko"].cer <= 0.03
    for _, transcript in found:
        assert len(transcript.segments) <= transcript.duration_s / 5
        assert all(segment.end_s - segment.start_s <= 30.0 for segment in transcript.segments)
        assert transcript.covered_s < transcript.speech_s


def test_silence_and_noise_have_no_text(stt: WhisperSTT, samples: Path) -> None:
    for name in ("silence.flac", "noise.flac"):
        transcript = stt.transcribe(samples / name)
        assert transcript.text == ""
        assert transcript.duration_s == pytest.approx(12.0, abs=0.01)


@pytest.mark.espeak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("n_per_language", [20, pytest.param(100, marks=long)])
def test_further_sentences(stt: WhisperSTT, held_out: Path, n_per_language: int) -> None:
    """As a night does it: chunks of all files, English and Korean mixed, in shared device batches."""
    rows = [row for row in references(held_out, "sentence") if int(str(row["file"])[3:6]) < n_per_language]
    assert len(rows) == 2 * n_per_language
    names = [str(row["file"]) for row in rows]
    chunks = [audio for name in names for audio in split_audio(held_out / name, file_id=name, name=name)]
    for window in ("full", "fit"):
        wer, cer = _error_rates(stt, chunks, rows, window)
        print(f"{stt.backend.name}, {window}: {wer:.2%} of English words, {cer:.2%} of Korean letters")
        assert wer <= 0.03
        assert cer <= 0.04


def _error_rates(
    stt: WhisperSTT, chunks: list[ChunkAudio], rows: list[dict[str, object]], window: WindowLength
) -> tuple[float, float]:
    """English words, Korean letters."""
    said: dict[str, list[str]] = {}
    for chunk in ChunkDecoder(stt.backend, TranscribeOptions(window=window)).transcribe(chunks):
        assert chunk.language == chunk.chunk.file_id[:2]
        said.setdefault(chunk.chunk.file_id, []).extend(segment.text.strip() for segment in chunk.segments)
    heard = {"en": Heard(), "ko": Heard()}
    for row in rows:
        heard[str(row["language"])].add(str(row["text"]), " ".join(said[str(row["file"])]))
    return heard["en"].wer, heard["ko"].cer
