"""A fixed number of workers of one kind, kept alive, lent to one caller at a time, first come first served.

Callers only ever meet workers that have finished loading, so a worker that dies while loading costs nobody an
attempt; a seat whose workers keep doing so is given up, and when no seat is left, callers are told why.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, TypeVar

import cloudpickle

from stt_engine.errors import DeviceFailed, TerminalError, UsageError, WorkerDied, WorkerFault
from stt_engine.types import Seconds
from tasks.runners.environment import threads_per_worker, worker_environment
from tasks.runners.seat import PoolLimits, Seat, WorkerRecipe
from tasks.runners.wire import Call, FrameKind, WorkerLog, reference, unpack_error
from tasks.runners.worker import WorkerSetup
from tasks.runners.worker_process import WorkerLoad, WorkerProcess

log = logging.getLogger(__name__)

WorkerKind = Literal["gpu", "cpu"]
Answer = TypeVar("Answer")

NO_LIMITS = PoolLimits()
_KILL_S = 5.0
"""How long `kill` waits for the kernel to take killed processes away."""


class PoolClosed(TerminalError):
    """The pool was closed or killed while a call waited or ran: the flow is ending. Not worth a retry."""


def as_log_record(record: WorkerLog) -> logging.LogRecord:
    """The standard library's record of it, at the time it was made in the worker."""
    made = logging.LogRecord(record.logger, record.level, "(worker)", 0, record.message, None, None)
    made.created = record.created_s
    return made


def log_here(record: WorkerLog) -> None:
    """Hands a worker's log record to the logger of the same name in this process."""
    logger = logging.getLogger(record.logger)
    if logger.isEnabledFor(record.level):
        logger.handle(as_log_record(record))


class WorkerPool:
    """`devices` names a device per worker: ("cuda:0", "cuda:1") or ("cpu", "cpu"). Thread safe.

    Nothing starts before the first call or `warm_up`; calls start as many workers as there are callers.
    Raises UsageError for a device or setup that cannot be.
    """

    def __init__(
        self,
        kind: WorkerKind,
        devices: Sequence[str],
        *,
        setup: WorkerSetup | None = None,
        threads: int | None = None,
        limits: PoolLimits = NO_LIMITS,
        log_level: int = logging.INFO,
        on_log: Callable[[WorkerLog], None] = log_here,
        on_load: Callable[[WorkerLoad], None] = lambda _: None,
    ) -> None:
        if not devices:
            raise UsageError(f"A pool of {kind} workers needs at least one device.")
        try:
            pickle.dumps(setup)
        except Exception as error:  # whatever the arguments' own __reduce__ raises
            raise UsageError(f"The setup of the {kind} workers cannot be sent to them: {error}") from error
        self.kind = kind
        self._limits = limits
        self._on_load = on_load
        self._closing = threading.Event()
        recipe = WorkerRecipe(kind, setup, limits, log_level, on_log)
        threads = threads or threads_per_worker(len(devices))
        self._seats = [
            Seat(
                recipe,
                device,
                worker_environment(device, threads=threads, inherited=os.environ, sys_path=sys.path),
                self._closing,
            )
            for device in devices
        ]
        self._lock = threading.RLock()
        self._free: deque[WorkerProcess] = deque()
        """Ready workers; empty while anybody waits."""
        self._waiting: deque[Future[WorkerProcess]] = deque()
        self._loads: list[WorkerLoad] = []

    @property
    def loads(self) -> list[WorkerLoad]:
        """Every load that a worker has finished, in that order."""
        with self._lock:
            return list(self._loads)

    @property
    def pids(self) -> list[int]:
        """Processes that live now, ready or loading."""
        return [worker.pid for worker in self._workers() if worker.pid is not None]

    def warm_up(self) -> None:
        """Starts every worker, in parallel, and does not wait for them."""
        with self._lock:
            for seat in self._seats:
                seat.start(self)

    def call(
        self,
        function: Callable[..., Answer],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        deadline_s: Seconds | None = None,
        what: str | None = None,
    ) -> Answer:
        """`function(*args, **kwargs)` in the next free worker, which imports it by name.

        deadline_s counts from the moment a loaded worker takes the call; `what` names it in errors. Raises what the
        function raises (the worker's traceback as a note), WorkerDied, DeadlineExceeded, PoolClosed, and when no
        worker can be had any more what made the last one fail.
        """
        name = reference(function)
        what = what or name
        answer: Answer = read_answer(
            self.send(cloudpickle.dumps(Call(name, tuple(args), dict(kwargs or {}))), what=what, deadline_s=deadline_s),
            what,
        )
        return answer

    def send(self, request: bytes, *, what: str, deadline_s: Seconds | None) -> bytes:
        """As `call`, with a pickled `Call`; returns the answer as it came, for `read_answer`."""
        worker = self._take()
        keep = False
        try:
            outcome, payload = worker.call(request, what=what, deadline_s=deadline_s)
            keep = True
            if outcome is FrameKind.ANSWER:
                return payload
            error = unpack_error(payload)
            # A device error sticks to the process that met it: every later call of this worker would fail too.
            keep = not isinstance(error, DeviceFailed)
            raise error
        finally:
            self._give_back(worker, keep=keep)

    def close(self, grace_s: Seconds = 5.0) -> None:
        """Ends every worker: those that load or wait at once, those in a call when it is done or `grace_s` is over."""
        self._turn_callers_away()
        for worker in self._workers():
            if worker.loaded is None:
                worker.kill(PoolClosed(f"{worker} was still loading when its pool was closed."))
            else:
                worker.stop()
        self._join(grace_s)
        self.kill()

    def kill(self) -> None:
        """Ends every worker at once; calls that wait or run raise PoolClosed. Returns when they are gone."""
        self._turn_callers_away()
        for worker in self._workers():
            worker.kill(PoolClosed(f"{worker} was ended with its pool."))
        self._join(_KILL_S)

    # What the seats' threads report.

    def worker_ready(self, worker: WorkerProcess) -> None:
        assert worker.loaded is not None
        with self._lock:
            self._loads.append(worker.loaded)
        log.info("%s is ready after loading for %.1f s.", worker, worker.loaded.load_s)
        self._on_load(worker.loaded)
        self._offer(worker)

    def worker_ended(self, worker: WorkerProcess) -> None:
        with self._lock, contextlib.suppress(ValueError):  # it was lent, or never offered
            self._free.remove(worker)

    def seat_given_up(self) -> None:
        """One broken device leaves the others to work; the last one turns everybody away."""
        with self._lock:
            error = self._hopeless()
            if error is None:
                self._start_for_demand()
                return
            waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            turn.set_exception(copy.copy(error))

    # Lending.

    def _take(self) -> WorkerProcess:
        turn: Future[WorkerProcess] = Future()
        with self._lock:
            if self._closing.is_set():
                raise self._closed()
            while self._free:
                worker = self._free.popleft()
                if worker.usable:
                    return worker
            if (error := self._hopeless()) is not None:
                raise copy.copy(error)
            self._waiting.append(turn)
            self._start_for_demand()
        try:
            return turn.result()
        except BaseException:  # e.g. KeyboardInterrupt: a worker that was lent to this turn must not be lost
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                elif turn.done() and turn.exception() is None:
                    self._give_back(turn.result(), keep=True)
            raise

    def _give_back(self, worker: WorkerProcess, *, keep: bool) -> None:
        if not keep:
            worker.kill(WorkerDied(f"{worker} was replaced after an error."))
        elif not worker.usable or self._limits.outgrown_by(worker):
            worker.stop()
        else:
            self._offer(worker)

    def _offer(self, worker: WorkerProcess) -> None:
        with self._lock:
            if self._closing.is_set():
                worker.stop()
            elif self._waiting:
                self._waiting.popleft().set_result(worker)
            else:
                self._free.append(worker)

    def _start_for_demand(self) -> None:
        idle = [seat for seat in self._seats if not seat.started]
        missing = len(self._waiting) - sum(seat.starting for seat in self._seats)
        for seat in idle[: max(0, missing)]:
            seat.start(self)

    def _hopeless(self) -> Exception | None:
        reasons = [seat.given_up for seat in self._seats if seat.given_up is not None]
        return reasons[-1] if len(reasons) == len(self._seats) else None

    def _turn_callers_away(self) -> None:
        self._closing.set()
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            self._free.clear()
        for turn in waiting:
            turn.set_exception(self._closed())

    def _closed(self) -> PoolClosed:
        return PoolClosed(f"The {self.kind} workers are being ended.")

    def _workers(self) -> list[WorkerProcess]:
        return [worker for seat in self._seats if (worker := seat.worker) is not None]

    def _join(self, patience_s: Seconds) -> None:
        until_s = time.monotonic() + patience_s
        for seat in self._seats:
            seat.join(max(0.0, until_s - time.monotonic()))


def read_answer(payload: bytes, what: str) -> Any:
    """Raises WorkerFault for one that only the worker could read."""
    try:
        return pickle.loads(payload)
    except Exception as error:  # e.g. a class of a module that only the worker can import
        raise WorkerFault(f"The answer to {what} cannot be read here: {type(error).__name__}: {error}") from error
