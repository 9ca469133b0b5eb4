"""A recording, in whatever container, to blocks of float32 at 16 kHz; streaming, a few seconds in memory.

    with open_audio(Path("call.ogg"), name="call.ogg", channels="mix") as audio:
        for block in audio:            # float32 (n_streams, n_samples)
            ...
    audio.info                         # what was found, with warnings about what would not decode

FFmpeg (through PyAV) gives back a part of a damaged file without any error. What is missing is counted here: against
the length that the container declares (`stt_engine.declared`), by jumps of the time stamps, by packets that would not
decode (`stt_engine.continuity`). A hole in the middle is filled with silence, so that what follows keeps its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
import av.container
import av.error
import numpy as np
import numpy.typing as npt

from stt_engine.audio_reader import AudioReader
from stt_engine.continuity import Continuity
from stt_engine.declared import declared_length
from stt_engine.errors import AudioTooLarge, CorruptAudio, EmptyFile, NightscribeError
from stt_engine.open_container import decoder_for, open_container
from stt_engine.resample import StreamResampler, arrange_channels, array_of, to_float
from stt_engine.types import AudioInfo, ChannelMode, Samples, Seconds, seconds_from_samples

FAULTS_OF_PYAV = (
    av.error.FFmpegError,
    OSError,
    ValueError,  # UnicodeDecodeError among them
    LookupError,
    AttributeError,
    MemoryError,
    RuntimeError,
)
"""What PyAV has been seen to raise on files that are not as they should be."""

_BLOCK_S = 4.0
_BLOCK_VALUES = 1 << 20
"""A block ends at the first of the two, so that 64 channels at 384 kHz stay small too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLimits:
    """What is refused, so that one odd file cannot take the machine. All are checked while streaming."""

    max_bytes: int = 32 * 2**30
    max_duration_s: Seconds = 24 * 3600.0
    """Of decoded audio; what the header says counts for nothing."""
    max_channels: int = 64
    min_sample_rate_hz: int = 1_000
    max_sample_rate_hz: int = 384_000


def open_audio(
    source: Path | BinaryIO, *, name: str, channels: ChannelMode = "mix", limits: AudioLimits | None = None
) -> AudioStream:
    """Opens a file, or reads a stream that the caller opened (and closes). `name` stands in every message.

    Raises EmptyFile, NotAudio, NoAudioStream, CorruptAudio, AudioTooLarge, AccessDenied, SourceGone; iterating may
    raise CorruptAudio (nothing decodes) and AudioTooLarge too.
    """
    limits = limits or AudioLimits()
    reader = AudioReader(source, name=name)
    try:
        if reader.size_bytes == 0:
            raise EmptyFile(f"{name}: is empty (0 bytes); upload it again")
        if reader.size_bytes is not None and reader.size_bytes > limits.max_bytes:
            raise AudioTooLarge(f"{name}: {reader.size_bytes} bytes, more than the limit of {limits.max_bytes}")
        return AudioStream(reader, name=name, channels=channels, limits=limits)
    except FAULTS_OF_PYAV as error:
        reader.close()
        raise _mapped(error, reader) from error
    except NightscribeError:
        reader.close()
        raise


class AudioStream:
    """Blocks of float32 `(n_streams, n_samples)` in [-1, 1] at 16 kHz, once; a context manager.

    `n_streams` is 1 when mixed, else the file's number of channels. A file without a single sample gives no block.
    """

    def __init__(self, reader: AudioReader, *, name: str, channels: ChannelMode, limits: AudioLimits) -> None:
        self.name = name
        self._reader, self._mode, self._limits = reader, channels, limits
        self._container, self._stream = open_container(reader)
        self._decoder = decoder_for(self._stream)
        self._declared = declared_length(self._container, self._stream, reader)
        self.channels = self._decoder.channels or self._stream.codec_context.channels
        self.sample_rate_hz = self._decoder.sample_rate or self._stream.codec_context.sample_rate
        self._check_shape(self.sample_rate_hz, self.channels)
        self.n_streams = 1 if channels == "mix" else self.channels
        self._shape = (self.sample_rate_hz, self.channels, "")
        self._resampler = StreamResampler(self.n_streams, self.sample_rate_hz)
        self._pending: list[npt.NDArray[Any]] = []
        self._pending_samples = 0
        self._time = Continuity(
            self._declared,
            start_s=Fraction(self._container.start_time or 0, 1_000_000),
            container=self._container.format.name,
            size_bytes=reader.size_bytes,
        )
        self._n_samples = 0
        self._n_not_finite = 0
        self._notes: list[str] = []
        self._ended = False

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file; safe to call twice."""
        self._container.close()
        self._reader.close()

    @property
    def info(self) -> AudioInfo:
        """What was found so far; final after the last block."""
        names = self._container.format.name.split(",")
        suffix = self.name.rpartition(".")[2].lower()
        return AudioInfo(
            duration_s=seconds_from_samples(self._n_samples),
            channels=self.channels,
            sample_rate_hz=self.sample_rate_hz,
            codec=self._stream.codec_context.codec.canonical_name,
            container=suffix if suffix in names else names[0],
            declared_duration_s=self._declared.duration_s,
            warnings=tuple(self._warnings()),
        )

    def __iter__(self) -> Iterator[Samples]:
        try:
            for block in self._blocks():
                self._n_samples += block.shape[1]
                if block.shape[1]:
                    yield np.clip(block, -1.0, 1.0, out=block)
        except FAULTS_OF_PYAV as error:
            if not isinstance(error, NightscribeError):
                raise _mapped(error, self._reader) from error
            raise
        self._ended = True
        if self._time.nothing_came:
            raise CorruptAudio(f"{self.name}: nothing of it decodes; the file is damaged, upload it again")

    def _blocks(self) -> Iterator[Samples]:
        for packet in self._packets():
            self._time.heard_of(packet)
            try:
                frames = self._decoder.decode(packet)
            except av.error.EOFError:
                break
            except av.error.PatchWelcomeError:
                continue  # AMR's frames of comfort noise, where the build lacks the decoder that knows them: a pause
            except FAULTS_OF_PYAV:
                yield from self._fill(self._time.failed(packet), lost=True)
                continue
            if frames:
                self._time.decoded(packet)
            for frame in frames:
                if frame.samples:
                    yield from self._take(frame)
        yield self._drain()
        yield self._resampler.flush()

    def _packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        stuck_at = -1
        while True:
            try:
                yield from self._container.demux(self._stream)
                return
            except FAULTS_OF_PYAV as error:
                if self._reader.failure is not None:
                    raise
                # FFmpeg gives up after 64 KB of an Ogg without a page, yet goes on behind them when asked again
                position = self._reader.position_bytes
                if position <= stuck_at or not isinstance(error, av.error.InvalidDataError):
                    self._time.failed()
                    return
                stuck_at = position

    def _take(self, frame: av.AudioFrame) -> Iterator[Samples]:
        shape = (frame.sample_rate, frame.layout.nb_channels, frame.format.name)
        if shape != self._shape:
            yield from self._change_shape(shape)
        hole_s, lost = self._time.hole_before(frame)
        if hole_s:
            yield from self._fill(hole_s, lost=lost)
        self._pending.append(array_of(frame))
        self._pending_samples += frame.samples
        self._advance(frame.samples / frame.sample_rate)
        values = self._pending_samples * shape[1]
        if self._pending_samples >= _BLOCK_S * frame.sample_rate or values >= _BLOCK_VALUES:
            yield self._drain()

    def _change_shape(self, shape: tuple[int, int, str]) -> Iterator[Samples]:
        self._check_shape(shape[0], shape[1])
        yield self._drain()
        if self._time.position_s == 0.0:
            # a header may say less than the first frame does (HE-AAC doubles the rate); streams are fixed from here
            self.sample_rate_hz, self.channels = shape[0], shape[1]
            self.n_streams = 1 if self._mode == "mix" else shape[1]
            self._resampler = StreamResampler(self.n_streams, shape[0])
        elif shape[:2] != self._shape[:2]:
            before = f"{self._shape[1]} channels at {self._shape[0]} Hz"
            after = f"{shape[1]} channels at {shape[0]} Hz"
            self._notes.append(f"the sound changes at {self._time.position_s:.1f} s from {before} to {after}")
            if shape[0] != self._shape[0]:
                yield self._resampler.flush()
                self._resampler = StreamResampler(self.n_streams, shape[0])
        self._shape = shape

    def _fill(self, hole_s: Seconds, *, lost: bool) -> Iterator[Samples]:
        yield self._drain()
        rate_hz = self._resampler.rate_hz
        left = round(hole_s * rate_hz)
        while left:
            n = min(left, int(_BLOCK_S * rate_hz))
            self._advance(n / rate_hz, lost=lost)
            yield self._resampler.feed(np.zeros((self.n_streams, n), dtype=np.float32))
            left -= n

    def _advance(self, by_s: Seconds, *, lost: bool = False) -> None:
        self._time.advance(by_s, lost=lost)
        if self._time.position_s > self._limits.max_duration_s + 0.001:  # a sum of floats
            raise AudioTooLarge(
                f"{self.name}: is longer than {self._limits.max_duration_s:g} s; cut it, or raise max_duration_s "
                "and do it again with --force"
            )
        if self._reader.size_bytes is None and self._reader.n_read_bytes > self._limits.max_bytes:
            raise AudioTooLarge(f"{self.name}: holds more than the limit of {self._limits.max_bytes} bytes")

    def _drain(self) -> Samples:
        if not self._pending:
            return np.zeros((self.n_streams, 0), dtype=np.float32)
        _, n_channels, sample_format = self._shape
        raw = self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending, axis=1)
        self._pending, self._pending_samples = [], 0
        samples, n_not_finite = to_float(raw, sample_format, n_channels)
        self._n_not_finite += n_not_finite
        return self._resampler.feed(arrange_channels(samples, self._mode, self.n_streams))

    def _check_shape(self, rate_hz: int, n_channels: int) -> None:
        limits = self._limits
        if n_channels > limits.max_channels:
            raise AudioTooLarge(f"{self.name}: {n_channels} channels, more than the limit of {limits.max_channels}")
        if rate_hz > limits.max_sample_rate_hz:
            raise AudioTooLarge(f"{self.name}: {rate_hz} Hz, more than the limit of {limits.max_sample_rate_hz}")
        if rate_hz < limits.min_sample_rate_hz or n_channels < 1:
            raise CorruptAudio(f"{self.name}: says it has {n_channels} channels at {rate_hz} Hz; the header is damaged")

    def _warnings(self) -> Iterator[str]:
        yield from self._notes
        if self._n_not_finite:
            yield f"{self._n_not_finite} samples are no numbers (NaN or infinite) and were taken as silence"
        if self._ended:
            yield from self._time.warnings()


def _mapped(error: BaseException, reader: AudioReader) -> NightscribeError:
    """Ours for whatever PyAV raised: the source's own trouble first, else the file is damaged."""
    if reader.failure is not None:
        return reader.mapped(reader.failure)
    if isinstance(error, NightscribeError):
        return error
    return CorruptAudio(f"{reader.label}: cannot be decoded ({type(error).__name__}); the file is damaged")


__all__ = ["AudioLimits", "AudioStream", "open_audio"]
