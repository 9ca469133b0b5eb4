"""One worker process as the flow sees it: started, fed one call at a time, reaped, its end explained."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextvars import Context, copy_context
from dataclasses import dataclass

from stt_engine.child_process import CRASHES, explained, resident_bytes_of
from stt_engine.errors import DeadlineExceeded, NightscribeError, WorkerDied
from stt_engine.types import Seconds
from tasks.runners.environment import device_inside
from tasks.runners.wire import FrameKind, Greeting, WorkerLog, read_frame, unpack_error, write_frame
from tasks.runners.worker import WorkerSetup

log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-P", "-c", "from tasks.runners.worker import main; main()")
_IMPORT_S = 300.0
"""How long a worker may take to import a function that it is to call, before the call's own deadline runs."""
_REAP_S = 10.0
"""How long a killed process may take to vanish; one stuck in a driver may take for ever."""


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """One loading of one worker: what proves that a model is loaded once per process."""

    kind: str
    device: str
    pid: int
    load_s: Seconds
    """In the loader, without the start of the interpreter."""


@dataclass(slots=True)
class Steps:
    """How often a call has said that a part of it is done."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class _Running:
    what: str
    context: Context
    """The caller's, so that a log line of its call can be told from others'."""
    taken: threading.Event
    answer: Future[tuple[FrameKind, bytes]]
    steps: Steps


class WorkerProcess:
    """Thread safe, for one call at a time; who calls when is the pool's business."""

    def __init__(
        self,
        *,
        kind: str,
        device: str,
        setup: WorkerSetup | None,
        environment: Mapping[str, str],
        log_level: int,
        on_log: Callable[[WorkerLog], None],
    ) -> None:
        self.kind = kind
        self.device = device
        self.pid: int | None = None
        self.loaded: WorkerLoad | None = None
        self.setup_error: Exception | None = None
        self.calls = 0
        self._setup = setup
        self._environment = dict(environment)
        self._log_level = log_level
        self._on_log = on_log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._running: _Running | None = None
        self._ending: NightscribeError | None = None
        self._leaving = False
        self._ended = False

    @property
    def running(self) -> str | None:
        """The call under way, as errors name it."""
        return None if (running := self._running) is None else running.what

    @property
    def usable(self) -> bool:
        return self.loaded is not None and not (self._leaving or self._ended)

    def run(self, on_ready: Callable[[], None]) -> None:
        """Starts the process and stays until it has ended; blocks the calling thread all that time.

        It has to be the same thread: Linux ties a child's death signal to the THREAD that started it.
        """
        with self._lock:
            if self._leaving:
                self._ended = True
                return
            self._process = process = subprocess.Popen(
                # The last two for whoever reads a list of processes.
                (*_COMMAND, f"{self.kind}-worker", self.device),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
            self.pid = process.pid
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(OSError):  # it died at once, which the loop below finds out
                write_frame(process.stdin, FrameKind.SETUP, self._greeting())
            while (frame := read_frame(process.stdout)) is not None:
                self._take(*frame, on_ready)
        finally:
            # Nobody can use a worker whose pipe has ended, so one that lives on regardless is ended.
            process.kill()
            process.wait()
            self._report_end()
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.stdout.close()

    def call(self, request: bytes, *, what: str, deadline_s: Seconds | None) -> tuple[FrameKind, bytes]:
        """Answer to one call. Raises WorkerDied, or DeadlineExceeded once the worker is dead.

        deadline_s counts anew from every step that the body says to have done (`tasks.runners.worker.next_step`).
        """
        running = _Running(what, copy_context(), threading.Event(), Future(), Steps())
        with self._lock:
            process = self._process
            if process is None or not self.usable:
                raise WorkerDied(f"{self} ended before it could take {what}.")
            self._running = running
            self.calls += 1
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has died: run() says so through the answer
            write_frame(process.stdin, FrameKind.CALL, request)
        if not running.taken.wait(_IMPORT_S):
            late = DeadlineExceeded(f"{self} was killed: importing what {what} needs took over {_IMPORT_S:g} s.")
        else:
            seen = -1
            while seen != running.steps.count:
                seen = running.steps.count
                done, _ = wait([running.answer], timeout=deadline_s)
                if done:
                    return running.answer.result()
            late = DeadlineExceeded(f"{self} was killed: {what} took longer than its deadline of {deadline_s:g} s.")
        self.kill(late)
        wait([running.answer], timeout=_REAP_S)
        if not running.answer.done():
            raise late
        return running.answer.result()

    def stop(self) -> None:
        """Lets it finish its call, then leave."""
        with self._lock:
            self._leaving = True
            process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # gone, or its pipe closed already
                write_frame(process.stdin, FrameKind.STOP)

    def kill(self, reason: NightscribeError) -> None:
        """Ends it at once; a call under way raises `reason`."""
        with self._lock:
            self._leaving = True
            if self._ending is None:
                self._ending = reason
            if self._process is not None:
                self._process.kill()  # does nothing to one that is reaped already

    def resident_bytes(self) -> int | None:
        """Memory it holds; None where there is no /proc, or no process any more."""
        return None if self.pid is None else resident_bytes_of(self.pid)

    def __str__(self) -> str:
        return f"The {self.kind} worker on {self.device} (pid {self.pid})"

    def _greeting(self) -> bytes:
        loader, arguments = (None, None) if self._setup is None else (self._setup.loader, self._setup.arguments)
        return pickle.dumps(
            Greeting(os.getpid(), device_inside(self.device), loader, pickle.dumps(arguments), self._log_level)
        )

    def _take(self, kind: FrameKind, payload: bytes, on_ready: Callable[[], None]) -> None:
        if kind is FrameKind.LOG:
            self._hand_on(pickle.loads(payload))
        elif kind is FrameKind.READY:
            pid, load_s = pickle.loads(payload)
            self.loaded = WorkerLoad(self.kind, self.device, pid, load_s)
            on_ready()
        elif kind is FrameKind.SETUP_FAILED:
            self.setup_error = unpack_error(payload)
        elif kind is FrameKind.TAKEN:
            if (running := self._running) is not None:
                running.taken.set()
        elif kind is FrameKind.STEP:
            if (running := self._running) is not None:
                running.steps.count += 1
        else:
            with self._lock:
                running, self._running = self._running, None
            if running is not None:
                running.answer.set_result((kind, payload))
                running.taken.set()

    def _hand_on(self, record: WorkerLog) -> None:
        running = self._running
        try:
            if running is None:
                self._on_log(record)
            else:
                running.context.run(self._on_log, record)
        except Exception:  # a log handler's fault must not pass for the worker's
            log.exception("a log line of %s could not be handed on", self)

    def _report_end(self) -> None:
        with self._lock:
            self._ended = True
            running, self._running = self._running, None
        if running is not None:
            running.answer.set_exception(self.epitaph(f"during {running.what}"))
            running.taken.set()

    def epitaph(self, moment: str) -> NightscribeError:
        """Why it ended: what it was killed for, else its exit status."""
        if self._ending is not None:
            return self._ending
        died = WorkerDied(f"{self} ended {moment}: {explained(self.status)}.")
        died.crashed = self.status is not None and -self.status in CRASHES
        return died

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it lives."""
        return None if self._process is None else self._process.returncode
