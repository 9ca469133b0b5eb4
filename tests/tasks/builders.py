"""Files and results for the tests of landing: small, but every column filled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from stt_engine.types import AudioInfo, Segment, Transcript, Word
from tasks.types import AudioFile, FileResult, RunStamp

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
OPTIONS = "0123456789abcdef"

ODD_NAMES = (
    "plain.wav",
    "with space.wav",
    "한국어 녹음.wav",
    "한국어 나눔.wav",  # decomposed, as macOS writes it
    "hash#tag.wav",
    "hundred%20percent%.wav",
    "question?mark=1&x=2.wav",
    "plus+plus.wav",
    "quote'single\".wav",
    "semi;colon:colon.wav",
    "back\\slash.wav",
    "[brackets]{braces}.wav",
    "tilde~ and $dollar.wav",
    "emoji 🎙.wav",
    "UPPER.WAV",
    "trailing dot..wav",
    "deep/er/and deeper/still.wav",
)

NEW_LINE = "new\nline.wav"
"""moto's router knows no keys with line ends; disks and Ceph do."""


def audio_file(number: int, *, version: str | None = None, source: str = "s3://calls") -> AudioFile:
    key = f"2026/03/{number:05d} 통화#1.wav"
    return AudioFile(
        f"{source}/{key}", key, version or f"etag{number}", 1000 + number, NOON + timedelta(seconds=number)
    )


def audio_files(count: int) -> list[AudioFile]:
    return [audio_file(number) for number in range(count)]


def stamp(run_id: str = "run-1") -> RunStamp:
    return RunStamp(run_id, "fixture", "fake", "float32", OPTIONS, "1.2.3")


def landed(file: AudioFile, text: str = "hello 안녕") -> FileResult:
    words = (Word(" hello", 0.25, 0.5, 0.9), Word(" 안녕", 0.5, 1.0, 0.8))
    segments = (
        Segment(text, 0.25, 1.0, None, -0.2, 0.01, 1.1, 0.0, ("low_confidence",), words),
        Segment("bye", 1.5, 2.0, None, -0.3, 0.02, 1.0, 0.2, (), (Word(" bye", 1.5, 2.0, 0.7),)),
    )
    transcript = Transcript(f"{text} bye", "ko", 0.98, 2.5, 1.5, 1.25, segments, "fake", "fixture", ("a warning",))
    info = AudioInfo(2.5, 2, 8000, "pcm_mulaw", "wav", 2.5, ("declared 3 s",))
    return FileResult(
        file, "landed", 1, transcript, info, "ab" * 32, warnings=("last",), labels={"agent": "kim"}, processing_s=0.5
    )


def failed(file: AudioFile) -> FileResult:
    return FileResult(file, "failed", 2, error_type="NotAudio", error_message=f"{file.key}: no container")
