"""The log-mel spectrogram computed on the GPU that wants it, and the samples on their way there.

The same spectrogram as `stt_engine.mel`, which a core computes some 1,000 times faster than real time: a GPU that hears
thousands of seconds a second would wait for it. Samples go through two small pinned buffers on a stream of their own,
so that those of the next device batch travel while this one is decoded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from stt_engine.mel import FFT_SAMPLES, HOP_SAMPLES, mel_filters
from stt_engine.types import Samples

_BLOCK_WINDOWS = 32
"""Transformed at a time, and held in a pinned buffer: 61 MB of samples, some 300 MB of spectrum."""
_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True, eq=False)
class _OnDevice:
    samples: Tensor
    """float32 `(windows, n_frames * 160)`, zeros after the audio."""
    there: torch.cuda.Event | None


class DeviceMel:
    """Spectrograms of one model on one device."""

    def __init__(self, n_mels: int, device: torch.device) -> None:
        self._device = device
        self._filters = torch.from_numpy(mel_filters(n_mels).copy()).to(device)
        self._hann = torch.hann_window(FFT_SAMPLES, device=device)
        self._sender = _Sender(device)
        self._sending: OrderedDict[tuple[int, ...], tuple[Sequence[Samples], Future[_OnDevice]]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="samples")

    def stage(self, windows: Sequence[Samples], n_frames: int) -> None:
        """Begin to send windows that will be asked for next; returns at once."""
        key = _key(windows, n_frames)
        if key not in self._sending:
            # With the windows themselves: the key is their identities, which are nobody else's as long as they live.
            self._sending[key] = (windows, self._thread.submit(self._sender.send, windows, n_frames))
        while len(self._sending) > _BATCHES_AHEAD:
            self._sending.popitem(last=False)

    @torch.inference_mode()
    def __call__(self, windows: Sequence[Samples], n_frames: int) -> Tensor:
        """float32 `(n_windows, n_mels, n_frames)` on the device, as `stt_engine.mel.log_mel`."""
        self.stage(windows, n_frames)
        sent = self._sending.pop(_key(windows, n_frames))[1].result()
        if sent.there is not None:
            torch.cuda.current_stream(self._device).wait_event(sent.there)
            sent.samples.record_stream(torch.cuda.current_stream(self._device))
        return torch.cat([self._log_mel(block, n_frames) for block in sent.samples.split(_BLOCK_WINDOWS)])

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._sending.clear()

    def _log_mel(self, samples: Tensor, n_frames: int) -> Tensor:
        spectrum = torch.stft(samples, FFT_SAMPLES, HOP_SAMPLES, window=self._hann, return_complex=True)
        power = spectrum[..., :n_frames].abs().square_()
        mel = torch.matmul(self._filters, power).clamp_(min=1e-10).log10_()
        lowest = mel.amax(dim=(1, 2), keepdim=True) - 8.0
        return torch.maximum(mel, lowest).add_(4.0).div_(4.0)


class _Sender:
    """Copies windows into pinned memory and from there to the device, a block at a time, by two buffers in turn."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        self._buffers: list[Tensor] = []
        self._free: list[torch.cuda.Event] = []
        self._turn = 0

    @torch.inference_mode()
    def send(self, windows: Sequence[Samples], n_frames: int) -> _OnDevice:
        length = n_frames * HOP_SAMPLES
        if self._stream is None:
            on_host = torch.empty((len(windows), length))
            _fill(on_host, windows)
            return _OnDevice(on_host, None)
        with torch.cuda.stream(self._stream):
            sent = torch.empty((len(windows), length), device=self._device)
            for start in range(0, len(windows), _BLOCK_WINDOWS):
                block = windows[start : start + _BLOCK_WINDOWS]
                buffer, free = self._next_buffer(len(block) * length)
                pinned = buffer[: len(block) * length].view(len(block), length)
                _fill(pinned, block)
                sent[start : start + len(block)].copy_(pinned, non_blocking=True)
                free.record()
            there = torch.cuda.Event()
            there.record()
        return _OnDevice(sent, there)

    def _next_buffer(self, n_samples: int) -> tuple[Tensor, torch.cuda.Event]:
        """A pinned buffer that nothing is being read from any more, and the event to say when that is so again."""
        if not self._buffers:
            self._buffers = [torch.empty(0) for _ in range(2)]
            self._free = [torch.cuda.Event() for _ in range(2)]
        self._turn = 1 - self._turn
        self._free[self._turn].synchronize()
        if len(self._buffers[self._turn]) < n_samples:
            self._buffers[self._turn] = torch.empty(n_samples, pin_memory=True)
        return self._buffers[self._turn], self._free[self._turn]


def _fill(rows: Tensor, windows: Sequence[Samples]) -> None:
    array = rows.numpy()
    for row, samples in zip(array, windows, strict=True):
        row[: len(samples)] = samples
        row[len(samples) :] = 0.0


def _key(windows: Sequence[Samples], n_frames: int) -> tuple[int, ...]:
    return (n_frames, *map(id, windows))
