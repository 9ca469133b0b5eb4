"""Tables as a site has them, small: what the built-in model hears in the bundled recordings, landed over three days.

    day 1   three recordings, one of them two days later done again
    day 2   a call with its two speakers apart, silence, and a file that is no recording
    day 3   the one that is done again, with a note in its labels

No Prefect: the engine and the landing alone, as the dispatcher calls them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import soundfile

from stt_engine import WhisperSTT
from stt_engine.errors import AudioError
from stt_engine.types import AudioInfo, ChannelMode
from tasks.batches import batch_id
from tasks.land import land_batch
from tasks.storage import Store, open_store
from tasks.types import AudioFile, FileResult, LandingBatch, RunStamp
from tests.tasks.builders import OPTIONS

SOURCE = "s3://calls/2026"
DAY_1 = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
DAY_2, DAY_3 = DAY_1 + timedelta(days=1), DAY_1 + timedelta(days=2)
KOREAN = "가격은 십 원입니다"
ENGLISH = "how can i help you next week"


@dataclass(frozen=True)
class Call:
    """A recording, and where it is to have come from."""

    key: str
    path: Path
    day: datetime
    channels: ChannelMode = "mix"
    generation: int = 0


def calls(samples: Path, made: Path) -> list[Call]:
    """`made` is a folder for the recordings that are put together here."""
    two_sided, letter = made / "two_sided.wav", made / "letter.wav"
    _two_sided(samples / "en_000.flac", samples / "en_001.flac", two_sided)
    letter.write_text("dear customer")
    return [
        Call("kim/상담 01.flac", samples / "ko_000.flac", DAY_1),
        Call("kim/en_000.flac", samples / "en_000.flac", DAY_1),
        Call("lee/en_long0.flac", samples / "en_long0.flac", DAY_1),
        Call("lee/two_sided.wav", two_sided, DAY_2, channels="split"),
        Call("lee/silence.flac", samples / "silence.flac", DAY_2),
        Call("lee/letter.wav", letter, DAY_2),
        Call("kim/en_000.flac", samples / "en_000.flac", DAY_3, generation=1),
    ]


def land_calls(dest: Path, found: list[Call]) -> Store:
    store = open_store(str(dest))
    stt = WhisperSTT("fixture", device="cpu", backend="faster-whisper", cpu_threads=1)
    try:
        for day in (DAY_1, DAY_2, DAY_3):
            of_day = [call for call in found if call.day == day]
            results = list(_results(stt, of_day))
            files = tuple(result.file for result in results)
            generations = tuple(call.generation for call in of_day)
            name = batch_id(list(zip(files, generations, strict=True)), OPTIONS)
            batch = LandingBatch(name, day.date(), OPTIONS, files, generations)
            stamp = RunStamp(f"run-{day:%d}", "fixture", "faster-whisper", "float32", OPTIONS, "0.1.0")
            land_batch(store, batch, results, stamp, transcribed_at=day + timedelta(minutes=10))
    finally:
        stt.close()
    return store


def uri(key: str) -> str:
    return f"{SOURCE}/{key}"


def _results(stt: WhisperSTT, found: list[Call]) -> Iterator[FileResult]:
    for call in found:
        size_bytes = call.path.stat().st_size
        file = AudioFile(uri(call.key), call.key, f"etag-{call.key}", size_bytes, DAY_1 - timedelta(hours=8))
        labels = {"agent": call.key.partition("/")[0]}
        try:
            said = stt.transcribe(call.path, timestamps="word", channels=call.channels)
        except AudioError as error:
            kind = type(error).__name__
            yield FileResult(file, "failed", 1, error_type=kind, error_message=str(error), labels=labels)
            continue
        sound = soundfile.info(call.path)
        info = AudioInfo(said.duration_s, sound.channels, sound.samplerate, "flac", "flac", said.duration_s)
        yield FileResult(file, "landed", 1, said, info, "ab" * 32, labels=labels, processing_s=0.5)


def _two_sided(left: Path, right: Path, target: Path) -> None:
    """The first speaker on channel 0, and when he has ended the second on channel 1."""
    (first, rate_hz), (second, _) = soundfile.read(left, dtype="float32"), soundfile.read(right, dtype="float32")
    both = np.zeros((len(first) + len(second), 2), dtype=np.float32)
    both[: len(first), 0], both[len(first) :, 1] = first, second
    soundfile.write(target, both, rate_hz)
