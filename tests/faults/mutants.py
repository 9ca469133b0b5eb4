"""Damaged recordings in any number: short speech in every container that is kept, and what disks, networks and people
do to files. Mutant number N is the same file at every call, so that a number in a message is enough to find it again.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from stt_engine.types import Samples
from tests.engine.encoding import VARIANTS, Variant, amr_with_pauses, encode, gsm_wav

CONTAINERS: Mapping[str, Variant] = VARIANTS | {
    "m4a-faststart": Variant("m4a", "ipod", "aac", 44_100, "stereo", {"movflags": "faststart"}),
    "mp4-fragmented": Variant("mp4", "mp4", "aac", 16_000, "mono", {"movflags": "frag_keyframe+empty_moov"}),
    "mkv-pcm": Variant("mkv", "matroska", "pcm_s16le"),
    "aiff": Variant("aiff", "aiff", "pcm_s16be"),
    "au": Variant("au", "au", "pcm_mulaw", 8_000),
    "ts": Variant("ts", "mpegts", "aac", 44_100),
    "flv": Variant("flv", "flv", "libmp3lame", 44_100),
    "wma": Variant("wma", "asf", "wmav2", 44_100, codec_options={"b": "64000"}),
    "mp2": Variant("mp2", "mp2", "mp2", 44_100),
    "wavpack": Variant("wv", "wv", "wavpack", 16_000),
}
"""How each seed is encoded; two more, of codecs that nothing here encodes, are made by hand."""

SPEECH_S = 1.6
HEAD_BYTES = 400
"""Where most of what a file says of itself stands."""


@dataclass(frozen=True)
class Seed:
    name: str
    suffix: str
    content: bytes


@dataclass(frozen=True)
class Mutant:
    name: str
    """Of the file: number, seed and what was done to it."""
    content: bytes


def seeds(speech: Path, folder: Path) -> list[Seed]:
    """The beginning of a recording at 16 kHz in each container; `folder` is for the files on the way."""
    sound, rate_hz = soundfile.read(speech, dtype="float32")
    sound = sound[: round(SPEECH_S * rate_hz)]
    made = []
    for name, variant in CONTAINERS.items():
        path = encode(folder / f"{name}.{variant.suffix}", variant, _at_rate(sound, rate_hz, variant.rate_hz))
        made.append(Seed(name, variant.suffix, path.read_bytes()))
    made.append(Seed("wav-gsm", "wav", gsm_wav(40)))
    made.append(Seed("amr-pauses", "amr", amr_with_pauses(10)))
    return made


def mutant(number: int, among: Sequence[Seed]) -> Mutant:
    """The seeds in turn, each with every kind of damage in turn; every fourth mutant is damaged twice."""
    chance = random.Random(number)
    seed = among[number % len(among)]
    kinds = list(DAMAGE)
    chosen = [kinds[(number + number // len(among)) % len(kinds)]]
    if chance.random() < 0.25:
        chosen.append(chance.choice(kinds))
    content = seed.content
    for kind in chosen:
        content = DAMAGE[kind](content, chance, among)
    return Mutant(f"{number:05d}-{seed.name}-{'-'.join(chosen)}.{seed.suffix}", content)


def write_mutants(folder: Path, numbers: Sequence[int], among: Sequence[Seed]) -> list[str]:
    """Their names."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [mutant(number, among) for number in numbers]
    for one in made:
        (folder / one.name).write_bytes(one.content)
    return [one.name for one in made]


def _flip_bits(content: bytes, chance: random.Random, _: Sequence[Seed]) -> bytes:
    damaged = bytearray(content)
    for _flip in range(2 ** chance.randrange(8) if damaged else 0):
        damaged[_position(damaged, chance)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _cut_off(content: bytes, chance: random.Random, _: Sequence[Seed]) -> bytes:
    return content[: _position(content, chance)]


def _behead(content: bytes, chance: random.Random, _: Sequence[Seed]) -> bytes:
    return content[_position(content, chance) :]


def _foreign_head(content: bytes, chance: random.Random, among: Sequence[Seed]) -> bytes:
    """The beginning of one recording before the rest of another."""
    donor = chance.choice(among).content
    length = chance.randrange(4, HEAD_BYTES)
    return donor[:length] + content[length:]


def _blow_up(content: bytes, chance: random.Random, _: Sequence[Seed]) -> bytes:
    """A number beside one of the container's tags (RIFF, MP4, AIFF have its length there), or anywhere in its head."""
    damaged = bytearray(content)
    tags = [found.start() for found in re.finditer(rb"[A-Za-z]{3}[A-Za-z0-9 ]", content)][:200]
    for _number in range(chance.randrange(1, 4)):
        width = chance.choice("BHIQ")
        size = struct.calcsize(width)
        if tags and chance.random() < 0.6:
            at = chance.choice(tags) + chance.choice((-4, 4, 8, 12, 16, 20))
        else:
            at = chance.randrange(HEAD_BYTES)
        top = 2 ** (8 * size)
        value = chance.choice((0, 1, top // 2 - 1, top // 2, top - 2, top - 1, chance.randrange(top)))
        if at >= 0 and at + size <= len(damaged):
            struct.pack_into(chance.choice("<>") + width, damaged, at, value)
    return bytes(damaged)


def _double(content: bytes, chance: random.Random, _: Sequence[Seed]) -> bytes:
    """A piece of it once more, right behind itself or somewhere else."""
    piece = _piece(content, chance)
    at = piece[1] if chance.random() < 0.5 else _position(content, chance)
    return content[:at] + content[piece[0] : piece[1]] * chance.randrange(1, 4) + content[at:]


def _zeros(content: bytes, chance: random.Random, _: Sequence[Seed]) -> bytes:
    start, stop = _piece(content, chance)
    return content[:start] + bytes(stop - start) + content[stop:]


def _noise(content: bytes, chance: random.Random, _: Sequence[Seed]) -> bytes:
    start, stop = _piece(content, chance)
    return content[:start] + chance.randbytes(stop - start) + content[stop:]


def _drop(content: bytes, chance: random.Random, _: Sequence[Seed]) -> bytes:
    start, stop = _piece(content, chance)
    return content[:start] + content[stop:]


DAMAGE: Mapping[str, Callable[[bytes, random.Random, Sequence[Seed]], bytes]] = {
    "flip": _flip_bits,
    "cut": _cut_off,
    "blow": _blow_up,
    "head": _foreign_head,
    "double": _double,
    "zeros": _zeros,
    "noise": _noise,
    "drop": _drop,
    "behead": _behead,
}


def _position(content: bytes | bytearray, chance: random.Random) -> int:
    """Half of them in the head."""
    end = min(HEAD_BYTES, len(content)) if chance.random() < 0.5 else len(content)
    return chance.randrange(max(1, end))


def _piece(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = _position(content, chance)
    return start, min(len(content), start + 2 ** chance.randrange(14))


def _at_rate(sound: Samples, from_hz: int, to_hz: int) -> Samples:
    times_s = np.arange(round(len(sound) * to_hz / from_hz)) / to_hz
    return np.interp(times_s, np.arange(len(sound)) / from_hz, sound).astype(np.float32)
