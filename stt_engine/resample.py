"""Decoded frames to float32 at 16 kHz: scaling, repair of NaN, mixing, resampling; a few seconds at a time."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.plane import AudioPlane

from stt_engine.types import SAMPLE_RATE_HZ, ChannelMode, Samples

_ZERO_AND_SCALE: dict[str, tuple[float, float]] = {
    "u8": (128.0, 1 / 2**7),
    "s16": (0.0, 1 / 2**15),
    "s32": (0.0, 1 / 2**31),
    "s64": (0.0, 1 / 2**63),
}
"""FFmpeg's sample formats without the `p` of planar; floats are in [-1, 1] already."""

_KINDS = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


def array_of(frame: av.AudioFrame) -> npt.NDArray[Any]:
    """As `frame.to_ndarray()`: `(n_channels, n_samples)` where planar, else `(1, n_channels * n_samples)`.

    That one looks for a null pointer behind the last plane, and where there are eight or more there is none: it hands
    out whatever lies behind as one more channel, and any 7.1 recording in AAC or Opus ended its process (PyAV 18.1).
    """
    if not frame.format.is_planar:
        return frame.to_ndarray()
    kind = np.dtype(_KINDS[frame.format.name.removesuffix("p")])
    planes: list[Any] = [AudioPlane(frame, channel) for channel in range(frame.layout.nb_channels)]
    return np.stack([np.frombuffer(plane, dtype=kind, count=frame.samples) for plane in planes])


def to_float(raw: npt.NDArray[Any], sample_format: str, n_channels: int) -> tuple[Samples, int]:
    """What `AudioFrame.to_ndarray` gave -> float32 `(n_channels, n_samples)` in [-1, 1], and how many values were
    NaN or infinite (they become 0, before resampling could smear them).

    16-bit samples come out as exactly x / 32768.
    """
    planar = sample_format.endswith("p")
    channels_first = raw if planar else raw.reshape(-1, n_channels).T
    kind = sample_format.removesuffix("p")
    if kind in _ZERO_AND_SCALE:
        zero, scale = _ZERO_AND_SCALE[kind]
        wide = np.float32 if kind in ("u8", "s16") else np.float64  # 24 bits and more lose less when scaled in double
        scaled = np.multiply(np.subtract(channels_first, zero, dtype=wide), scale, dtype=wide)
        return np.ascontiguousarray(scaled, dtype=np.float32), 0
    with np.errstate(over="ignore"):
        samples = np.array(channels_first, dtype=np.float32, order="C")
    bad = ~np.isfinite(samples)
    n_bad = int(np.count_nonzero(bad))
    if n_bad:
        samples[bad] = 0.0
    return samples, n_bad


def arrange_channels(samples: Samples, mode: ChannelMode, n_streams: int) -> Samples:
    """`(n_channels, n)` -> `(n_streams, n)`.

    "mix" is the plain mean over all channels: swresample's own down-mix weighs by speaker position and drops the LFE
    channel, which in an eight-channel call recording is a person. One channel passes through bit for bit. "split" keeps
    them; where the file changes its number of channels on the way, missing ones are silent and further ones left out.
    """
    n_channels = samples.shape[0]
    if mode == "mix":
        return samples if n_channels == 1 else samples.mean(axis=0, dtype=np.float32, keepdims=True)
    if n_channels == n_streams:
        return samples
    arranged = np.zeros((n_streams, samples.shape[1]), dtype=np.float32)
    kept = min(n_channels, n_streams)
    arranged[:kept] = samples[:kept]
    return arranged


class StreamResampler:
    """float32 `(n_streams, n)` at any rate -> `(n_streams, m)` at 16 kHz, state kept from call to call.

    Each stream has a resampler of its own, so that no channel layout is ever asked of swresample (it knows none for
    five unnamed channels). At 16 kHz samples pass untouched.
    """

    def __init__(self, n_streams: int, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._n_streams = n_streams
        self._resamplers = (
            []
            if rate_hz == SAMPLE_RATE_HZ
            else [av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ) for _ in range(n_streams)]
        )

    def feed(self, samples: Samples) -> Samples:
        if not self._resamplers or not samples.shape[1]:
            return samples
        rows = []
        for resampler, row in zip(self._resamplers, samples, strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(row[None, :]), format="fltp", layout="mono")
            frame.sample_rate = self.rate_hz
            rows.append(_joined(resampler.resample(frame)))
        return np.stack(rows)

    def flush(self) -> Samples:
        """What the filters still hold; the resampler is of no use afterwards."""
        if not self._resamplers:
            return np.zeros((self._n_streams, 0), dtype=np.float32)
        return np.stack([_joined(resampler.resample(None)) for resampler in self._resamplers])


def _joined(frames: list[av.AudioFrame]) -> Samples:
    if not frames:
        return np.zeros(0, dtype=np.float32)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])
