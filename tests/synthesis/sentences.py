"""Recordings of sentences that the built-in model was never trained on.

python -m tests.synthesis.sentences FOLDER [COUNT]     COUNT a language, 100 if not said, and reference.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from tests.synthesis.espeak import Espeak, Samples
from tests.synthesis.grammar import is_held_out, sentence

SAMPLE_RATE_HZ = 16_000
_TIMBRES = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+f1", "+f2", "+f3", "+f4")
VOICES = {
    "en": [base + timbre for base in ("gmw/en-US", "gmw/en") for timbre in _TIMBRES],
    "ko": ["ko" + timbre for timbre in _TIMBRES],
}


@dataclass(frozen=True, eq=False)
class Spoken:
    """One sentence with a moment of silence around it; float32 (n_samples,) at 16 kHz."""

    language: str
    text: str
    voice: str
    samples: Samples


def held_out_sentences(language: str, count: int, *, seed: int = 20_260_101) -> Iterator[Spoken]:
    """`count` different sentences in the model's voices, at varied pace, pitch and level, every third with hiss.

    The same for the same seed and version of espeak-ng.
    """
    random, synthesiser = Random(f"{seed}-{language}"), Espeak()
    hiss = np.random.default_rng(seed)
    said: set[str] = set()
    while len(said) < count:
        text = sentence(random, language)
        if text in said or not is_held_out(text, language):
            continue
        said.add(text)
        voice = random.choice(VOICES[language])
        spoken = synthesiser.say(
            text,
            voice,
            words_per_minute=random.randint(135, 205),
            pitch=random.randint(25, 75),
            pitch_range=random.randint(30, 70),
        )
        before, after = (np.zeros(int(random.uniform(0.1, 0.7) * SAMPLE_RATE_HZ), np.float32) for _ in range(2))
        samples = np.concatenate([before, _trimmed(spoken) * random.uniform(0.3, 1), after])
        if len(said) % 3 == 0:
            samples = samples + hiss.normal(0, random.choice([0.001, 0.003]), len(samples))
        yield Spoken(language, text, voice, np.clip(samples, -1, 1).astype(np.float32))


def write_held_out(folder: Path, count: int) -> Path:
    """`count` FLAC files a language and `reference.jsonl` in the form of tests/data/samples; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    reference = folder / "reference.jsonl"
    with reference.open("w") as lines:
        for language in ("en", "ko"):
            for index, spoken in enumerate(held_out_sentences(language, count)):
                name = f"{language}_{index:03d}.flac"
                soundfile.write(folder / name, spoken.samples, SAMPLE_RATE_HZ, subtype="PCM_16")
                line = {
                    "file": name,
                    "duration_s": round(len(spoken.samples) / SAMPLE_RATE_HZ, 2),
                    "language": language,
                    "text": spoken.text,
                    "voice": spoken.voice,
                    "kind": "sentence",
                }
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    return reference


def _trimmed(samples: Samples) -> Samples:
    """Without the quiet that the synthesiser puts around: 5 ms before the sound and 10 ms after stay."""
    loud = np.flatnonzero(np.abs(samples) > 0.015 * np.abs(samples).max())
    return samples[max(0, loud[0] - 80) : loud[-1] + 160]


if __name__ == "__main__":
    write_held_out(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100)
