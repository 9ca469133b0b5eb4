"""Recordings in many containers and codecs, encoded by PyAV for the tests, and damage done to them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from stt_engine.types import Samples

ToneSamples = npt.NDArray[np.float32]


def tone(duration_s: float, rate_hz: int = 16_000, *, pitch_hz: float = 440.0) -> ToneSamples:
    """A tone that swells and fades once a second; float32 `(n_samples,)`, peak 0.4."""
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (0.4 * np.sin(2 * np.pi * pitch_hz * time_s) * np.sin(np.pi * time_s) ** 2).astype(np.float32)


@dataclass(frozen=True)
class Variant:
    """A container and codec that PyAV's build can write."""

    suffix: str
    container: str
    codec: str
    rate_hz: int = 16_000
    layout: str = "mono"
    container_options: Mapping[str, str] = field(default_factory=dict)
    codec_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_channels(self) -> int:
        return av.AudioLayout(self.layout).nb_channels


VARIANTS = {
    "wav-pcm16": Variant("wav", "wav", "pcm_s16le"),
    "wav-pcm24": Variant("wav", "wav", "pcm_s24le", 48_000, "stereo"),
    "wav-float": Variant("wav", "wav", "pcm_f32le", 44_100),
    "wav-u8": Variant("wav", "wav", "pcm_u8", 8_000),
    "wav-mulaw": Variant("wav", "wav", "pcm_mulaw", 8_000),
    "wav-alaw": Variant("wav", "wav", "pcm_alaw", 8_000),
    "raw-mulaw": Variant("ulaw", "mulaw", "pcm_mulaw", 8_000),
    "raw-alaw": Variant("alaw", "alaw", "pcm_alaw", 8_000),
    "wav-adpcm": Variant("wav", "wav", "adpcm_ima_wav", 8_000),
    "flac": Variant("flac", "flac", "flac", 44_100, "stereo"),
    "mp3": Variant("mp3", "mp3", "libmp3lame", 44_100, "stereo"),
    "mp3-8khz": Variant("mp3", "mp3", "libmp3lame", 8_000),
    "m4a": Variant("m4a", "ipod", "aac", 44_100, "stereo"),
    "aac": Variant("aac", "adts", "aac", 44_100),
    "ogg-vorbis": Variant("ogg", "ogg", "vorbis", 44_100, "stereo", codec_options={"strict": "experimental"}),
    "opus": Variant("opus", "ogg", "libopus", 48_000),
    "webm": Variant("webm", "webm", "libopus", 48_000),
    "amr": Variant("amr", "amr", "libopencore_amrnb", 8_000),
    "caf-alac": Variant("caf", "caf", "alac", 44_100),
    "3gp-amr": Variant("3gp", "3gp", "libopencore_amrnb", 8_000),
}


def encode(
    path: Path, variant: Variant, samples: Samples | None = None, *, duration_s: float = 3.0, with_picture: bool = False
) -> Path:
    """Write `samples` (float32 `(n_samples,)`, at the variant's rate, the same on every channel; else a tone)."""
    mono = tone(duration_s, variant.rate_hz) if samples is None else samples
    with av.open(str(path), "w", format=variant.container, options=dict(variant.container_options)) as container:
        picture = None
        if with_picture:
            picture = container.add_stream("mpeg4", rate=10)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        stream = container.add_stream(variant.codec, rate=variant.rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.layout = variant.layout
        stream.options = dict(variant.codec_options)
        if picture is not None:
            for number in range(int(len(mono) / variant.rate_hz * 10)):
                image = np.full((64, 64, 3), number % 256, dtype=np.uint8)
                container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(picture.encode(None))
        planes = np.repeat(mono[None, :], variant.n_channels, axis=0)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=variant.layout)
        frame.sample_rate, frame.pts = variant.rate_hz, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def encode_video_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        for _ in range(10):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(picture.encode(None))
    return path


def jpeg() -> bytes:
    picture = av.CodecContext.create("mjpeg", "w")
    picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
    picture.time_base = Fraction(1, 1)
    image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in [*picture.encode(image), *picture.encode(None)])


def wav(
    content: bytes,
    *,
    rate_hz: int = 16_000,
    n_channels: int = 1,
    bits: int = 16,
    tag: int = 1,
    claim: int | None = None,
) -> bytes:
    """A WAV by hand; `claim` is what the header says about the size of its data, in bytes."""
    claimed = len(content) if claim is None else claim
    align = n_channels * bits // 8
    head = struct.pack("<HHIIHH", tag, n_channels, rate_hz, rate_hz * align, align, bits)
    return (
        b"RIFF" + struct.pack("<I", min(36 + claimed, 0xFFFFFFFF)) + b"WAVEfmt " + struct.pack("<I", 16) + head
        + b"data" + struct.pack("<I", claimed) + content
    )  # fmt: skip


def wav_of(samples: Samples, rate_hz: int = 16_000) -> bytes:
    """Float32 `(n_channels, n_samples)` as a 32-bit float WAV, NaN and all."""
    return wav(samples.T.astype("<f4").tobytes(), rate_hz=rate_hz, n_channels=len(samples), bits=32, tag=3)


def gsm_wav(n_blocks: int) -> bytes:
    """GSM 6.10 as Microsoft packs it: blocks of 65 bytes, each 320 samples at 8 kHz; all-zero blocks are silence."""
    head = struct.pack("<HHIIHHHH", 0x31, 1, 8_000, 1_625, 65, 0, 2, 320)
    fact = struct.pack("<I", 320 * n_blocks)
    body = bytes(65 * n_blocks)
    chunks = b"fmt " + struct.pack("<I", 20) + head + b"fact" + struct.pack("<I", 4) + fact
    chunks += b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def amr_with_pauses(n_periods: int) -> bytes:
    """AMR-NB by hand, nothing but pauses: one frame of comfort noise (SID) and seven empty ones every 160 ms."""
    return b"#!AMR\n" + (bytes([0x44]) + bytes(5) + b"\x7c" * 7) * n_periods


def overwritten(content: bytes, start: float, end: float) -> bytes:
    """The share from `start` to `end` replaced by noise, as a broken disk would."""
    first, last = int(len(content) * start), int(len(content) * end)
    noise = np.random.default_rng(7).integers(0, 256, last - first, dtype=np.uint8).tobytes()
    return content[:first] + noise + content[last:]
