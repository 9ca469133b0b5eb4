"""The corpora that everything is measured on: sentences of the tests' recordings, put together, seeded.

(a) calls: 200 of 2 to 12 s; (b) talks: 12 of 10 min; (c) archive: one of 3 h; (d) formats: 60 calls in six formats.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile

from stt_engine.types import SAMPLE_RATE_HZ, Samples, Seconds

SAMPLES = Path(__file__).resolve().parent.parent / "tests" / "data" / "samples"
SEED = 20261125


@dataclass(frozen=True, slots=True)
class Recording:
    path: Path
    language: str
    text: str
    duration_s: Seconds


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    samples: Samples


def calls(folder: Path, *, count: int = 200) -> list[Recording]:
    return _write(folder, [(2.0, 12.0)] * count, pause_s=(0.2, 0.5), suffixes=(".flac",))


def talks(folder: Path, *, count: int = 12) -> list[Recording]:
    return _write(folder, [(600.0, 600.0)] * count, pause_s=(0.3, 1.5), suffixes=(".flac",))


def archive(folder: Path) -> list[Recording]:
    return _write(folder, [(3 * 3600.0, 3 * 3600.0)], pause_s=(0.3, 1.5), suffixes=(".flac",))


def formats(folder: Path, *, count: int = 60) -> list[Recording]:
    suffixes = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
    return _write(folder, [(2.0, 40.0)] * count, pause_s=(0.2, 0.8), suffixes=suffixes)


CORPORA: Mapping[str, Callable[[Path], list[Recording]]] = {
    "calls": calls,
    "talks": talks,
    "archive": archive,
    "formats": formats,
}


def made(name: str, below: Path) -> list[Recording]:
    """The corpus in `below/name`; made there once."""
    folder = below / name
    index = folder / "index.json"
    if not index.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = [(r.path.name, r.language, r.text, r.duration_s) for r in CORPORA[name](folder)]
        index.write_text(json.dumps(rows, ensure_ascii=False))
    return [Recording(folder / path, *rest) for path, *rest in json.loads(index.read_text())]


def _write(
    folder: Path,
    lengths_s: list[tuple[Seconds, Seconds]],
    *,
    pause_s: tuple[Seconds, Seconds],
    suffixes: tuple[str, ...],
) -> list[Recording]:
    chance = random.Random(SEED)
    sentences = _sentences()
    found = []
    for number, (least_s, most_s) in enumerate(lengths_s):
        language = ("en", "ko")[number % 2]
        wanted = chance.uniform(least_s, most_s) * SAMPLE_RATE_HZ
        pieces: list[Samples] = []
        texts: list[str] = []
        n_samples = 0
        while not texts or n_samples < wanted - 2 * SAMPLE_RATE_HZ:
            sentence = chance.choice(sentences[language])
            pause = np.zeros(int(chance.uniform(*pause_s) * SAMPLE_RATE_HZ), np.float32)
            pieces += [pause, sentence.samples]
            texts.append(sentence.text)
            n_samples += len(pause) + len(sentence.samples)
        path = folder / f"{number:03d}-{language}{suffixes[number // 2 % len(suffixes)]}"
        _encode(path, np.concatenate(pieces))
        found.append(Recording(path, language, " ".join(texts), n_samples / SAMPLE_RATE_HZ))
    return found


def _sentences() -> dict[str, list[_Sentence]]:
    rows = [json.loads(line) for line in (SAMPLES / "reference.jsonl").read_text().splitlines()]
    found: dict[str, list[_Sentence]] = {"en": [], "ko": []}
    for row in rows:
        if row["kind"] == "sentence":
            samples, _ = soundfile.read(SAMPLES / row["file"], dtype="float32")
            found[row["language"]].append(_Sentence(row["text"], samples))
    return found


_CODECS = {".mp3": "libmp3lame", ".opus": "libopus", ".m4a": "aac"}


def _encode(path: Path, samples: Samples) -> None:
    if path.suffix not in _CODECS:
        soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="VORBIS" if path.suffix == ".ogg" else "PCM_16")
        return
    with av.open(str(path), "w") as container:
        rate_hz = 48_000 if path.suffix == ".opus" else SAMPLE_RATE_HZ
        stream = container.add_stream(_CODECS[path.suffix], rate=rate_hz, layout="mono")
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate_hz, frame_size=stream.frame_size)
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for whole in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(whole))
        container.mux(stream.encode(None))
