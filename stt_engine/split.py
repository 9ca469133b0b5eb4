"""A recording to chunks with their samples: decode, find speech, cut; memory bounded whatever the length.

splitter = split_audio(path, file_id="...", name="calls/0815.wav", options=SplitOptions())
for audio in splitter:             # ChunkAudio, as soon as each is complete
    ...
splitter.info, splitter.speech_s, splitter.timings_s
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from stt_engine.chunking import Chunker, ChunkOptions
from stt_engine.decode import AudioLimits, AudioStream, open_audio
from stt_engine.errors import UsageError
from stt_engine.speech_regions import VadOptions
from stt_engine.types import AudioInfo, ChannelMode, Chunk, ChunkAudio, Samples, Seconds, seconds_from_samples
from stt_engine.vad import SpeechDetector


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """How a recording is taken apart."""

    channels: ChannelMode = "mix"
    chunks: ChunkOptions = field(default_factory=ChunkOptions)
    vad: VadOptions = field(default_factory=VadOptions)
    limits: AudioLimits = field(default_factory=AudioLimits)

    def __post_init__(self) -> None:
        if self.channels not in ("mix", "split"):
            raise UsageError(f"channels must be mix or split, not {self.channels!r}")
        self.vad_within_chunks  # noqa: B018  said here, before any file is opened

    @property
    def vad_within_chunks(self) -> VadOptions:
        """A region is cut where it would not fit into a chunk."""
        return replace(self.vad, max_speech_s=min(self.vad.max_speech_s, self.chunks.max_chunk_s))


def split_audio(
    source: Path | BinaryIO,
    *,
    file_id: str,
    name: str,
    options: SplitOptions | None = None,
    on_block: Callable[[], None] = lambda: None,
) -> AudioSplitter:
    """Opens the recording. `name` stands in messages, `file_id` in the chunks; `on_block` is called after every few
    decoded seconds, speech or not, and may raise.

    Raises what `stt_engine.decode.open_audio` raises; iterating may raise CorruptAudio and AudioTooLarge.
    """
    options = options or SplitOptions()
    audio = open_audio(source, name=name, channels=options.channels, limits=options.limits)
    return AudioSplitter(audio, file_id=file_id, options=options, on_block=on_block)


class AudioSplitter:
    """Iterates once over `ChunkAudio`, per channel ascending in time. The file is released at the end, on `close`, when
    the iterator is dropped, and on leaving `with`.

    In "split" mode each channel is looked at by itself and its chunks bear its number; a silent one gives none.
    """

    def __init__(
        self, audio: AudioStream, *, file_id: str, options: SplitOptions, on_block: Callable[[], None]
    ) -> None:
        self._audio, self._file_id, self._options, self._on_block = audio, file_id, options, on_block
        self._speech_samples = 0
        self._decode_s: Seconds = 0.0
        self._vad_s: Seconds = 0.0

    @property
    def info(self) -> AudioInfo:
        """Final after the last chunk."""
        return self._audio.info

    @property
    def speech_s(self) -> Seconds:
        """Seconds inside regions, their padding included; summed over channels when they are apart."""
        return seconds_from_samples(self._speech_samples)

    @property
    def timings_s(self) -> Mapping[str, float]:
        """Wall seconds spent so far: decode (reading, resampling), vad (speech, chunks, copying samples)."""
        return {"decode": self._decode_s, "vad": self._vad_s}

    def __enter__(self) -> AudioSplitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._audio.close()

    def __iter__(self) -> Generator[ChunkAudio]:
        try:
            yield from self._chunks()
        finally:
            self.close()

    def _chunks(self) -> Iterator[ChunkAudio]:
        streams: list[_Stream] = []
        detector: SpeechDetector | None = None
        blocks = iter(self._audio)
        while (block := self._next_block(blocks)) is not None:
            started = time.perf_counter()
            if detector is None:
                streams = [self._stream(number) for number in range(len(block))]
                detector = SpeechDetector(self._options.vad_within_chunks, n_streams=len(block))
            complete: list[ChunkAudio] = []
            found = detector.feed(block)
            for number, (stream, regions) in enumerate(zip(streams, found, strict=True)):
                stream.tape.append(block[number])
                chunks = stream.chunker.feed(regions, detector.earliest_start_sample(number))
                complete += stream.tape.cut_out(chunks)
                stream.tape.forget_before(stream.chunker.needed_from_sample)
                self._speech_samples += sum(r.end_sample - r.start_sample for r in regions)
            self._vad_s += time.perf_counter() - started
            self._on_block()
            yield from complete
        if detector is None:
            return
        started = time.perf_counter()
        complete = []
        for stream, regions in zip(streams, detector.finish(), strict=True):
            chunks = stream.chunker.feed(regions) + stream.chunker.finish(stream.tape.end_sample)
            complete += stream.tape.cut_out(chunks)
            self._speech_samples += sum(r.end_sample - r.start_sample for r in regions)
        self._vad_s += time.perf_counter() - started
        yield from complete

    def _next_block(self, blocks: Iterator[Samples]) -> Samples | None:
        started = time.perf_counter()
        block = next(blocks, None)
        self._decode_s += time.perf_counter() - started
        return block

    def _stream(self, number: int) -> _Stream:
        channel = number if self._options.channels == "split" else None
        return _Stream(Chunker(self._options.chunks, file_id=self._file_id, channel=channel), _Tape())


class _Tape:
    """The samples of one stream that a chunk may still need; positions count from the file's start."""

    def __init__(self) -> None:
        self._start_sample = 0
        self._samples: Samples = np.zeros(0, dtype=np.float32)

    @property
    def end_sample(self) -> int:
        return self._start_sample + len(self._samples)

    def append(self, samples: Samples) -> None:
        self._samples = np.concatenate([self._samples, samples])

    def cut_out(self, chunks: list[Chunk]) -> list[ChunkAudio]:
        at = self._start_sample
        return [ChunkAudio(c, self._samples[c.start_sample - at : c.end_sample - at].copy()) for c in chunks]

    def forget_before(self, sample: int) -> None:
        n = min(max(0, sample - self._start_sample), len(self._samples))
        self._samples = self._samples[n:]
        self._start_sample += n


@dataclass(frozen=True, slots=True)
class _Stream:
    chunker: Chunker
    tape: _Tape
