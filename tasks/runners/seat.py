"""A place for one worker on one device: filled, watched, and filled again when its worker has ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from stt_engine.errors import BackendUnavailable, MemoryLimitExceeded, RetryableError, UsageError, WorkerDied
from stt_engine.types import Seconds
from tasks.runners.wire import WorkerLog
from tasks.runners.worker import WorkerSetup
from tasks.runners.worker_process import WorkerProcess

log = logging.getLogger(__name__)

START_ATTEMPTS = 5
"""Workers of a seat that may end in a row before they are ready."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
WATCH_S = 0.1
"""Between two looks at a worker's memory; what fills faster passes its limit by what it writes in that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """When a worker is replaced although it has not died; None: never."""

    load_s: Seconds | None = 1800.0
    """Time for the loader; a worker that is not ready by then is killed."""
    memory_bytes: int | None = None
    """Resident memory at which a worker is killed in the middle of a call, which raises MemoryLimitExceeded. Watched
    from outside, because a limit on address space (RLIMIT_AS) counts what onnxruntime and CUDA merely reserve, and
    because a decoder that is refused memory says that the file is damaged. Linux only."""
    recycle_above_bytes: int | None = None
    """Resident memory after a call above which a worker makes room for a fresh one. Linux only."""
    recycle_after_calls: int | None = None

    def outgrown_by(self, worker: WorkerProcess) -> bool:
        if self.recycle_after_calls is not None and worker.calls >= self.recycle_after_calls:
            return True
        return self.recycle_above_bytes is not None and (worker.resident_bytes() or 0) > self.recycle_above_bytes


@dataclass(frozen=True, slots=True)
class WorkerRecipe:
    """What all workers of a pool have in common."""

    kind: str
    setup: WorkerSetup | None
    limits: PoolLimits
    log_level: int
    on_log: Callable[[WorkerLog], None]


class SeatOwner(Protocol):
    """The pool, told by the seat's thread."""

    def worker_ready(self, worker: WorkerProcess) -> None: ...

    def worker_ended(self, worker: WorkerProcess) -> None: ...

    def seat_given_up(self) -> None: ...


class Seat:
    """Its thread is the parent of its workers and lives as long as they do (see WorkerProcess.run)."""

    def __init__(
        self, recipe: WorkerRecipe, device: str, environment: Mapping[str, str], closing: threading.Event
    ) -> None:
        self.device = device
        self.worker: WorkerProcess | None = None
        self.given_up: Exception | None = None
        self._recipe = recipe
        self._environment = environment
        self._closing = closing
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        return self._thread is not None

    @property
    def starting(self) -> bool:
        """A worker is on its way."""
        return self.started and self.given_up is None and (self.worker is None or self.worker.loaded is None)

    def start(self, owner: SeatOwner) -> None:
        """Under the pool's lock. Does nothing the second time."""
        if self._thread is None and not self._closing.is_set():
            self._thread = threading.Thread(
                target=self._tend, args=(owner,), name=f"{self._recipe.kind} worker on {self.device}", daemon=True
            )
            self._thread.start()

    def join(self, patience_s: Seconds) -> None:
        if self._thread is not None:
            self._thread.join(patience_s)

    def _tend(self, owner: SeatOwner) -> None:
        failures = 0
        while not self._closing.is_set():
            worker = self._fill(owner)
            if self._closing.is_set():
                return
            if worker.loaded is not None:
                failures = 0
                if worker.status != 0:
                    log.warning("%s Starting another.", worker.epitaph("in service"))
                continue
            failures += 1
            error = worker.setup_error or worker.epitaph("while loading")
            if not isinstance(error, RetryableError) or failures >= START_ATTEMPTS:
                self._give_up(error, failures)
                owner.seat_given_up()
                return
            pause_s = min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S)
            log.warning("%s Starting another in %.1f s.", error, pause_s)
            self._closing.wait(pause_s)

    def _fill(self, owner: SeatOwner) -> WorkerProcess:
        """One worker from its start to its end."""
        recipe = self._recipe
        self.worker = worker = WorkerProcess(
            kind=recipe.kind,
            device=self.device,
            setup=recipe.setup,
            environment=self._environment,
            log_level=recipe.log_level,
            on_log=recipe.on_log,
        )
        if self._closing.is_set():  # the pool may have looked for workers to end just before this one was made
            return worker
        over = threading.Event()
        threading.Thread(target=self._watch, args=(worker, over), name=f"watch {self.device}", daemon=True).start()
        try:
            worker.run(lambda: owner.worker_ready(worker))
        except OSError as error:  # no memory for another process, too many open files
            worker.setup_error = WorkerDied(f"A {recipe.kind} worker could not be started: {error}.")
        finally:
            over.set()
            self.worker = None
            owner.worker_ended(worker)
        return worker

    def _watch(self, worker: WorkerProcess, over: threading.Event) -> None:
        limits = self._recipe.limits
        began_s = time.monotonic()
        while not over.wait(1.0 if limits.memory_bytes is None else WATCH_S):
            held_bytes = worker.resident_bytes() or 0
            if limits.memory_bytes is not None and held_bytes > limits.memory_bytes:
                held = f"it held {held_bytes >> 20} MiB, its limit is {limits.memory_bytes >> 20} MiB."
                call = worker.running
                if call is None:  # nobody's file is to blame
                    worker.kill(WorkerDied(f"{worker} was killed: {held}"))
                else:
                    worker.kill(MemoryLimitExceeded(f"{worker} was killed during {call}: {held}"))
            elif worker.loaded is None and limits.load_s is not None and time.monotonic() - began_s > limits.load_s:
                worker.kill(WorkerDied(f"{worker} was killed: not loaded after {limits.load_s:g} s."))

    def _give_up(self, error: Exception, failures: int) -> None:
        if isinstance(error, WorkerDied):
            error = BackendUnavailable(
                f"{failures} {self._recipe.kind} workers in a row ended on {self.device} before they were ready; "
                f"`nightscribe doctor` tells more. The last: {error}"
            )
        # A usage error ends the run, which says it in its own one line.
        level = logging.DEBUG if isinstance(error, UsageError) else logging.ERROR
        log.log(level, "No more %s workers on %s: %s", self._recipe.kind, self.device, error)
        self.given_up = error
