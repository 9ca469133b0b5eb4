"""A place for one splitting process after the other: started, fed, listened to, ended, replaced.

A seat knows no recordings; what becomes of those that a process leaves behind is decided in `splitters.py`.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Literal

from stt_engine.child_process import CRASHES, explained, resident_bytes_of
from stt_engine.server.split_orders import Forget, Ready, Said, SplitOrder, TurnBoard
from stt_engine.types import Seconds

log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-P", "-c", "from stt_engine.server.split_worker import main; main()", "split-worker")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
_FIRST_PAUSE_S = 0.5

Cause = Literal["crash", "stall", "memory", "ended"]
"""`ended`: by somebody else, such as the kernel when memory runs out, or by us while nothing was to be done."""


@dataclass(frozen=True, slots=True)
class End:
    """Of a process: why, and whose turn it was (0: nobody's)."""

    cause: Cause
    number: int
    explanation: str


class Seat:
    """`on_said`, `on_end` and `on_start_failed` are called by the seat's own thread, one at a time."""

    def __init__(
        self,
        name: str,
        *,
        on_said: Callable[[Seat, Said], None],
        on_end: Callable[[Seat, End], None],
        on_start_failed: Callable[[int, str], None],
    ) -> None:
        self.name = name
        self.numbers: set[int] = set()
        """Of the recordings that its process has, kept by the pool under its lock."""
        self.ready = False
        self.stalled_s: Seconds = 0.0
        """For how long the recording whose turn it is has made no step."""
        self._on_said, self._on_end, self._on_start_failed = on_said, on_end, on_start_failed
        self._closing = threading.Event()
        self._wanted = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: queue.SimpleQueue[SplitOrder | Forget | None] = queue.SimpleQueue()
        self._board: TurnBoard | None = None
        self._killed_for: Cause | None = None
        self._seen_steps = 0
        # A child's death signal is tied to the THREAD that started it (see `child_process.end_with_parent`).
        self._thread = threading.Thread(target=self._tend, name=name, daemon=True)

    def start(self, *, wanted: bool) -> None:
        """Its thread; its first process only if `wanted`, else with the first `want`."""
        if wanted:
            self._wanted.set()
        self._thread.start()

    def want(self) -> None:
        self._wanted.set()

    def send(self, what: SplitOrder | Forget) -> None:
        """Never blocks: a process that hangs reads nothing."""
        self._outbox.put(what)

    def rest(self) -> None:
        """No process follows this one before the next `want`."""
        self._wanted.clear()

    def retire(self) -> None:
        """The process, which has nothing in hand, makes room for a fresh one."""
        self.ready = False
        self._outbox.put(None)

    def kill(self, cause: Cause) -> None:
        self.ready = False
        self._killed_for = self._killed_for or cause
        if (process := self._process) is not None:
            process.kill()  # does nothing to one that is reaped already

    def close(self) -> None:
        self._closing.set()
        self._wanted.set()
        self.kill("ended")

    def join(self, patience_s: Seconds) -> None:
        self._thread.join(max(0.0, patience_s))

    def look(self, since_s: Seconds) -> None:
        """Called now and then, `since_s` after the last time: has there been a step?"""
        if (board := self._board) is None:
            return
        number, steps = board.read()
        self.stalled_s = self.stalled_s + since_s if number and steps == self._seen_steps else 0.0
        self._seen_steps = steps

    @property
    def resident_bytes(self) -> int:
        process = self._process
        return 0 if process is None else resident_bytes_of(process.pid) or 0

    def _tend(self) -> None:
        failures = 0
        while self._wanted.wait() and not self._closing.is_set():
            was_ready, end = self._one_process()
            if self._closing.is_set():
                return
            failures = 0 if was_ready else failures + 1
            if failures:
                self._on_start_failed(failures, end.explanation)
                self._closing.wait(_FIRST_PAUSE_S * 2**failures)
            self._on_end(self, end)

    def _one_process(self) -> tuple[bool, End]:
        """From its start to its end; whether it was ever ready."""
        with tempfile.NamedTemporaryFile(prefix="nightscribe-board-") as file:
            file.truncate(TurnBoard.LAYOUT.size)
            board = TurnBoard(mmap.mmap(file.fileno(), TurnBoard.LAYOUT.size))
            outbox = self._outbox = queue.SimpleQueue()
            self._killed_for, self.stalled_s, self._board = None, 0.0, board
            environment = {**os.environ, **_ONE_THREAD}
            environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
            try:
                self._process = process = subprocess.Popen(
                    (*_COMMAND, str(os.getpid()), file.name),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:  # no memory for another process, too many open files
                return False, End("ended", 0, str(error))
            assert process.stdin is not None
            assert process.stdout is not None
            if self._closing.is_set():  # `close` may have looked for a process just before this one was made
                process.kill()
            threading.Thread(target=_write, args=(outbox, process.stdin), name=f"{self.name} out", daemon=True).start()
            try:
                was_ready = self._listen(process.stdout)
            finally:
                self.ready = False
                process.kill()  # nobody can use one whose pipe has ended
                status = process.wait()
                outbox.put(None)
                process.stdout.close()
        return was_ready, End(self._cause(status), board.read()[0], explained(status))

    def _listen(self, answers: IO[bytes]) -> bool:
        was_ready = False
        while True:
            try:
                said: Said = pickle.load(answers)
            except (EOFError, pickle.UnpicklingError):  # its end, which may cut a word
                return was_ready
            if isinstance(said, Ready):
                was_ready = self.ready = True
            self._on_said(self, said)

    def _cause(self, status: int) -> Cause:
        if self._killed_for is not None:
            return self._killed_for
        return "crash" if -status in CRASHES else "ended"


def _write(outbox: queue.SimpleQueue[SplitOrder | Forget | None], orders: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):  # the process has gone, which its other pipe tells
        while (what := outbox.get()) is not None:
            pickle.dump(what, orders, protocol=pickle.HIGHEST_PROTOCOL)
            orders.flush()
    with contextlib.suppress(OSError):
        orders.close()


class Watch(threading.Thread):
    """Calls `look` about ten times a second with the seconds that have passed, until it is stopped."""

    EVERY_S = 0.1
    LONGEST_S = 1.0
    """A machine that was asleep, or stopped in a debugger, has not been waiting for a decoder."""

    def __init__(self, look: Callable[[Seconds], None]) -> None:
        super().__init__(name="watch splitters", daemon=True)
        self._look = look
        self._stopped = threading.Event()

    def run(self) -> None:
        before_s = time.monotonic()
        while not self._stopped.wait(self.EVERY_S):
            now_s = time.monotonic()
            self._look(min(now_s - before_s, self.LONGEST_S))
            before_s = now_s

    def stop(self) -> None:
        self._stopped.set()
