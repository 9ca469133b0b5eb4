"""Whisper's log-mel spectrogram, for a batch of windows, in float32 numpy.

As openai/whisper `audio.py:log_mel_spectrogram` over audio padded with zeros to 30 s: a Hann window of 400 samples
every 160, power, a mel filterbank in Slaney's form, log10, the range cut 8 below each window's maximum. Only the
frames that touch audio are transformed: the rest is silence, whose value is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stt_engine.types import SAMPLE_RATE_HZ, WINDOW_SAMPLES, Samples

FFT_SAMPLES = 400
"""25 ms."""
HOP_SAMPLES = 160
"""10 ms."""
FRAMES_PER_WINDOW = WINDOW_SAMPLES // HOP_SAMPLES

_MARGIN = FFT_SAMPLES // 2
_BLOCK_FRAMES = 256
"""Frames transformed at a time: few enough that a block stays in a core's cache (measured best of 128 to 3,000)."""
_FRAMES_PER_S = SAMPLE_RATE_HZ // HOP_SAMPLES
_TAIL_FRAMES = 2 * _FRAMES_PER_S
_FEWEST_FRAMES = 6 * _FRAMES_PER_S
_FLOOR = np.float32(1e-10)
_LOG10_OF_FLOOR = np.float32(-10.0)
_RANGE = np.float32(8.0)
_SHIFT = np.float32(4.0)
_LN_10 = np.float32(np.log(10.0))


def log_mel(
    windows: Sequence[Samples], n_mels: int, *, n_frames: int = FRAMES_PER_WINDOW, threads: int = 1
) -> npt.NDArray[np.float32]:
    """float32 `(n_windows, n_mels, n_frames)` from float32 windows of 1 to 480,000 samples; n_mels is 80 or 128.

    Fewer than 3,000 frames must be as many as `fitting_frames` says. `threads` spreads the windows (numpy lets go of
    the interpreter in each step). Raises ValueError for a window that is empty or longer than 30 s.
    """
    for samples in windows:
        if samples.ndim != 1 or not 0 < len(samples) <= WINDOW_SAMPLES:
            raise ValueError(f"a window holds 1 to {WINDOW_SAMPLES} samples, not {samples.shape}")
    spectrogram = np.empty((len(windows), n_mels, n_frames), dtype=np.float32)
    threads = min(threads, len(windows))
    if threads <= 1:
        for samples, output in zip(windows, spectrogram, strict=True):
            _write_log_mel(samples, output)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_write_log_mel, windows, spectrogram))
    return spectrogram


def _write_log_mel(samples: Samples, output: npt.NDArray[np.float32]) -> None:
    filters, hann = mel_filters(len(output)), _hann()
    n_frames = frames_with_audio(len(samples))
    frames = np.lib.stride_tricks.sliding_window_view(_padded(samples, n_frames), FFT_SAMPLES)[::HOP_SAMPLES]
    for start in range(0, n_frames, _BLOCK_FRAMES):
        spectrum = np.fft.rfft(frames[start : start + _BLOCK_FRAMES] * hann)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        np.matmul(filters, power.T, out=output[:, start : start + len(power)])
    heard, silent = output[:, :n_frames], output[:, n_frames:]
    np.maximum(heard, _FLOOR, out=heard)
    np.log(heard, out=heard)  # log10 has no vector form in numpy; one division is cheaper
    heard /= _LN_10
    lowest = max(heard.max() - _RANGE, _LOG10_OF_FLOOR)
    np.maximum(heard, lowest, out=heard)
    silent[:] = lowest
    output += _SHIFT
    output /= _SHIFT


def fitting_frames(windows: Sequence[Samples]) -> int:
    """Frames for a batch that is cut to its longest window and two seconds of silence: whole seconds, at most 3,000.

    The silence is what tells Whisper that speech has ended; without it, it writes on.
    """
    wanted = max(frames_with_audio(len(samples)) for samples in windows) + _TAIL_FRAMES
    return min(FRAMES_PER_WINDOW, max(_FEWEST_FRAMES, -(-wanted // _FRAMES_PER_S) * _FRAMES_PER_S))


def frames_with_audio(n_samples: int) -> int:
    """How many of the 3,000 frames, each centred on a multiple of 10 ms, reach into the first `n_samples`."""
    return min(FRAMES_PER_WINDOW, (n_samples + _MARGIN - 1) // HOP_SAMPLES + 1)


def _padded(samples: Samples, n_frames: int) -> Samples:
    """All samples that `n_frames` frames see, with zeros after the audio.

    The 30 s are mirrored at both ends, as torch.stft's `center=True` does: at the start always, at the end only
    where a full window leaves no silence (40 samples).
    """
    padded = np.zeros((n_frames - 1) * HOP_SAMPLES + FFT_SAMPLES, dtype=np.float32)
    body = padded[_MARGIN:]
    kept = min(len(samples), len(body))
    body[:kept] = samples[:kept]
    padded[:_MARGIN] = _head(samples)
    overhang = len(body) - WINDOW_SAMPLES
    if overhang > 0 and len(samples) > WINDOW_SAMPLES - 1 - overhang:
        mirrored = np.zeros(overhang, dtype=np.float32)
        source = samples[WINDOW_SAMPLES - 1 - overhang : WINDOW_SAMPLES - 1]
        mirrored[: len(source)] = source
        body[WINDOW_SAMPLES:] = mirrored[::-1]
    return padded


def _head(samples: Samples) -> Samples:
    head = np.zeros(_MARGIN, dtype=np.float32)
    source = samples[1 : _MARGIN + 1]
    head[: len(source)] = source
    return head[::-1]


@lru_cache(maxsize=1)
def _hann() -> Samples:
    """The periodic Hann window, as torch.hann_window(400)."""
    hann: Samples = np.hanning(FFT_SAMPLES + 1)[:-1].astype(np.float32)
    return hann


@lru_cache(maxsize=4)
def mel_filters(n_mels: int) -> npt.NDArray[np.float32]:
    """float32 `(n_mels, 201)`: triangles between 0 and 8 kHz, each of equal area (2 / width in Hz).

    The mel scale of Slaney's Auditory Toolbox (1998): linear below 1 kHz at 200/3 Hz a mel, above it logarithmic with
    27 steps to a factor of 6.4; the same as librosa.filters.mel(sr=16000, n_fft=400, n_mels=n_mels).
    """
    if n_mels not in (80, 128):
        raise ValueError(f"Whisper has 80 or 128 mel bands, not {n_mels}")
    bins_hz = np.fft.rfftfreq(FFT_SAMPLES, 1.0 / SAMPLE_RATE_HZ)
    top_mel = 15.0 + 27.0 * np.log(SAMPLE_RATE_HZ / 2 / 1000.0) / np.log(6.4)
    mels = np.linspace(0.0, top_mel, n_mels + 2)
    edges_hz = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    below, centre, above = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (bins_hz - below) / (centre - below)
    falling = (above - bins_hz) / (above - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: npt.NDArray[np.float32] = (triangles * 2.0 / (above - below)).astype(np.float32)
    filters.setflags(write=False)
    return filters
