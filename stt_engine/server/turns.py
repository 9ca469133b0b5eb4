"""Threads that take turns, so that a recording of three hours does not hold up a clip of eight seconds.

At most `n_at_once` threads hold a turn. Whoever has held his for a slice gives it to the one that has waited longest
and queues up again; the operating system alone would let all of them run at once and each of them slowly.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from stt_engine.server.problems import Abandoned
from stt_engine.server.split_orders import TurnBoard

SLICE_S = 0.05


class Turns:
    def __init__(self, n_at_once: int) -> None:
        self._free = n_at_once
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def take(self) -> None:
        """Waits for a turn."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            called = threading.Event()
            self._waiting.append(called)
        called.wait()

    def give(self) -> None:
        """The turn goes to whoever has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1

    @property
    def somebody_waits(self) -> bool:
        return bool(self._waiting)


class SharedTurn:
    """One thread's turn: given up at reads and steps once it has lasted a slice and somebody waits.

    While it is held the board says so, and counts the steps.
    """

    def __init__(self, turns: Turns, board: TurnBoard, number: int, abandoned: Callable[[], bool]) -> None:
        self._turns, self._board, self._number, self._abandoned = turns, board, number, abandoned
        self._since_s = 0.0

    def __enter__(self) -> SharedTurn:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give()

    def step(self) -> None:
        """Raises Abandoned where nobody wants the result any more."""
        if self._abandoned():
            raise Abandoned("nobody waits for this recording any more")
        self._board.hold(self._number)
        if self._turns.somebody_waits and time.monotonic() - self._since_s > SLICE_S:
            self._give()
            self._take()

    def _take(self) -> None:
        self._turns.take()
        self._board.hold(self._number)
        self._since_s = time.monotonic()

    def _give(self) -> None:
        self._board.release()
        self._turns.give()


class SteppedReader:
    """A file whose reads are steps of a turn: the decoder reads now and then even where no speech comes out."""

    def __init__(self, file: BinaryIO, turn: SharedTurn) -> None:
        self._file, self._turn = file, turn

    def read(self, n_bytes: int = -1) -> bytes:
        self._turn.step()
        return self._file.read(n_bytes)

    def seek(self, offset_bytes: int, whence: int = 0) -> int:
        return self._file.seek(offset_bytes, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
