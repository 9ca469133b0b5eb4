"""Chunks on disk between splitting and transcribing: raw int16 at 16 kHz, so that no run holds a night in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from stt_engine.types import Chunk, ChunkAudio, Samples

BYTES_PER_SAMPLE = 2
_FULL_SCALE = 32768.0


def to_pcm16(samples: Samples) -> bytes:
    """float32 in [-1, 1] to little-endian int16; exact for what came from 16-bit audio, clipped at full scale."""
    scaled = np.rint(samples * _FULL_SCALE)
    counts: npt.NDArray[np.int16] = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")
    return counts.tobytes()


def from_pcm16(pcm: bytes) -> Samples:
    """Little-endian int16 to float32 in [-1, 1)."""
    counts: npt.NDArray[np.int16] = np.frombuffer(pcm, dtype="<i2")
    samples: Samples = counts.astype(np.float32)
    samples *= np.float32(1 / _FULL_SCALE)
    return samples


class ChunkSpool:
    """One file of chunks, written from front to back, read from anywhere.

    One process may write it and another read it, which `adopt`s the chunks that it is told of.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """`shared`: another process may have the file open, so what is there is written over, not cut off."""
        self.path = path
        if shared:
            path.touch()
        self._file: BinaryIO = path.open("r+b" if shared else "w+b")
        self._chunks: list[tuple[Chunk, int]] = []
        self._size_bytes = 0

    def append(self, audio: ChunkAudio) -> int:
        """Write a chunk and return the offset of its first byte."""
        offset = self._size_bytes
        pcm = to_pcm16(audio.samples)
        self._file.seek(offset)
        self._file.write(pcm)
        self._size_bytes += len(pcm)
        self._chunks.append((audio.chunk, offset))
        return offset

    def flush(self) -> None:
        """What was appended is there for other processes."""
        self._file.flush()

    def adopt(self, chunk: Chunk, offset_bytes: int) -> None:
        """A chunk that was appended to this file elsewhere."""
        self._chunks.append((chunk, offset_bytes))

    @property
    def chunks(self) -> Sequence[Chunk]:
        return [chunk for chunk, _ in self._chunks]

    def read(self, position: int) -> ChunkAudio:
        """The `position`-th chunk appended."""
        chunk, offset = self._chunks[position]
        self._file.seek(offset)
        return ChunkAudio(chunk, from_pcm16(self._file.read(chunk.n_samples * BYTES_PER_SAMPLE)))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
