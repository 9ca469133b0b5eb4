"""What the server and a splitting process say to each other, as pickles over two pipes; samples go by the spool file.

Beside the pipes there is a board of 16 bytes that both map: whose turn it is at the moment, and how many steps have
been made. A process that has crashed or hangs says nothing any more, but its board still names the recording at fault.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stt_engine.errors import NightscribeError
from stt_engine.split import SplitOptions
from stt_engine.types import AudioInfo, Chunk, Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOrder:
    """One upload to be taken apart."""

    number: int
    """From 1; whatever is said about the upload later bears it."""
    request_id: str
    name: str
    """Of the file, for messages."""
    upload: Path
    spool: Path
    options: SplitOptions


@dataclass(frozen=True, slots=True)
class Forget:
    """Nobody waits for it any more: it ends at its next step."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The first word of a process."""


@dataclass(frozen=True, slots=True)
class ChunkSpooled:
    number: int
    chunk: Chunk
    offset_bytes: int
    """In the spool file, which holds the samples by now."""


@dataclass(frozen=True, slots=True)
class SplitComplete:
    number: int
    info: AudioInfo
    speech_s: Seconds


@dataclass(frozen=True, slots=True)
class SplitFailed:
    number: int
    error: NightscribeError


Said = Ready | ChunkSpooled | SplitComplete | SplitFailed


class TurnBoard:
    """Written by whoever holds the one turn of a process, read from outside."""

    LAYOUT = struct.Struct("=QQ")

    def __init__(self, memory: Any) -> None:
        """`memory`: a writable buffer of `LAYOUT.size` bytes, such as a mapped file."""
        self._memory = memory
        self._steps = 0

    def hold(self, number: int) -> None:
        """The turn is taken for this recording, or a step of it is done."""
        self._steps += 1
        self.LAYOUT.pack_into(self._memory, 0, number, self._steps)

    def release(self) -> None:
        self.hold(0)

    def read(self) -> tuple[int, int]:
        """Whose turn it is (0: nobody's), and a number that grows with every step."""
        number, steps = self.LAYOUT.unpack_from(self._memory, 0)
        return int(number), int(steps)
