"""Who is still at work: a run's heartbeat in the store, and whether to believe it.

A heartbeat is compared with the store's own clock (the modification time of an object just written), never with the
clock of the machine that asks; between runs of one machine by the time since it was booted, which nobody can set, since
a local disk's clock is the machine's own and may jump. Taking a live run for dead costs work done twice, never a row
landed twice: whoever adopts its batches lands them under the same names, and each name is created once (see
`tasks.plan_log`).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from stt_engine.errors import NightscribeError
from stt_engine.types import Seconds
from tasks.storage import NotStored, Store

log = logging.getLogger(__name__)

BEAT_EVERY_S: Seconds = 30.0
DEAD_AFTER_S: Seconds = 180.0


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """A run and the process it lives in; None where the system does not tell."""

    run_id: str
    host: str
    boot_id: str | None
    pid_namespace: str | None
    """Process ids mean nothing in another container, even on the same host and boot."""
    pid: int
    process_started: str | None
    """Kernel ticks since boot: tells a process from a later one with the same id."""

    @classmethod
    def here(cls, run_id: str) -> RunIdentity:
        """This process."""
        if not run_id or "/" in run_id or run_id.startswith("."):
            raise ValueError(f"{run_id!r} cannot name a run")
        return cls(
            run_id, socket.gethostname(), _boot_id(), _pid_namespace(), os.getpid(), _process_started(os.getpid())
        )

    def surely_gone(self) -> bool:
        """True when the process ran on this machine since its last boot and is no more."""
        same_place = (self.host, self.boot_id, self.pid_namespace) == (
            socket.gethostname(),
            _boot_id(),
            _pid_namespace(),
        )
        if not same_place or self.boot_id is None or self.pid_namespace is None or self.process_started is None:
            return False
        return _process_started(self.pid) != self.process_started


def heartbeat_path(run_id: str) -> str:
    return f"_runs/{run_id}.alive"


def beat(store: Store, run: RunIdentity) -> datetime:
    """Writes the heartbeat and returns the store's time of it."""
    payload = asdict(run) | {"at": datetime.now(UTC).isoformat(), "since_boot_s": _since_boot_s()}
    store.replace(heartbeat_path(run.run_id), json.dumps(payload).encode())
    stored = store.stat(heartbeat_path(run.run_id))
    return stored.modified_at if stored else datetime.now(UTC)


def is_alive(store: Store, run: RunIdentity, *, store_now: datetime, dead_after_s: Seconds = DEAD_AFTER_S) -> bool:
    """False when the run has said goodbye, has been silent for `dead_after_s`, or its process here is gone."""
    if run.surely_gone():
        return False
    stored = store.stat(heartbeat_path(run.run_id))
    if stored is None:
        return False
    age_s = _age_since_boot_s(store, run)
    if age_s is None:
        age_s = (store_now - stored.modified_at).total_seconds()
    return age_s < dead_after_s


def _age_since_boot_s(store: Store, run: RunIdentity) -> Seconds | None:
    """Of the heartbeat of a run of this machine since its last boot; None for any other."""
    now_s = _since_boot_s()
    if now_s is None or run.boot_id is None or run.boot_id != _boot_id():
        return None
    try:
        return now_s - float(json.loads(store.read(heartbeat_path(run.run_id)))["since_boot_s"])
    except (NotStored, ValueError, KeyError, TypeError):
        return None  # gone meanwhile, or written by a version that did not say


class Heartbeat:
    """`with Heartbeat(store, run):` keeps the run alive for others; leaving it says goodbye.

    Enter it before planning, and leave it after `tasks.plan_log.mark_done`: a run that is silent with its plan not
    marked is one whose batches the next run adopts.
    """

    def __init__(self, store: Store, run: RunIdentity, *, every_s: Seconds = BEAT_EVERY_S) -> None:
        self._store, self._run, self._every_s = store, run, every_s
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        beat(self._store, self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._thread.join()
        try:
            self._store.delete(heartbeat_path(self._run.run_id))
        except NightscribeError as failure:
            # Others find out by its age; the run's own outcome must not depend on it.
            log.warning("could not take back the heartbeat of run %s: %s", self._run.run_id, failure)

    def _keep_beating(self) -> None:
        while not self._leaving.wait(self._every_s):
            try:
                beat(self._store, self._run)
            except NightscribeError as error:
                log.warning("missed a heartbeat of run %s: %s", self._run.run_id, error)


def _since_boot_s() -> Seconds | None:
    """Goes on while the machine sleeps, unlike time.monotonic; None where the system has no such clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else None


def _boot_id() -> str | None:
    return _read_text("/proc/sys/kernel/random/boot_id")


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _process_started(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; None for a process that is gone, a zombie, or a system without /proc."""
    text = _read_text(f"/proc/{pid}/stat")
    if text is None:
        return None
    fields = text.rpartition(")")[2].split()  # the command's name, in parentheses, may hold anything
    return None if fields[0] in ("Z", "X") else fields[19]


def _read_text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
