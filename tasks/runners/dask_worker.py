"""What runs inside a Dask worker: the same worker processes as on one machine, as many as it has resources for.

Dask decides which machine takes an order; the process below it has loaded the model, keeps deadlines and limits on
memory, and crashes alone. So everything that `tasks.runners.pool` promises holds here too, and no Dask worker ever
imports a decoder or holds a model.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Reschedule, WorkerPlugin, get_worker

from stt_engine import __version__
from stt_engine.devices import choose_devices
from stt_engine.errors import BackendUnavailable, ClusterUnavailable, DeviceUnavailable
from stt_engine.types import Seconds
from tasks.runners.pool import PoolClosed, WorkerKind, WorkerPool, log_here
from tasks.runners.seat import PoolLimits
from tasks.runners.wire import WorkerLog, pack_error
from tasks.runners.worker import WorkerSetup
from tasks.runners.worker_process import WorkerLoad
from tasks.spool import sweep

log = logging.getLogger(__name__)

RESOURCE: dict[WorkerKind, str] = {"gpu": "GPU", "cpu": "CPU"}
"""What an order asks a Dask worker for; each has as many worker processes as it has of it."""

IDLE_S: Seconds = 1800.0
"""Processes without a call for so long are ended: their flow may be gone, and nobody would tell."""

_heard: ContextVar[list[WorkerLog] | None] = ContextVar("_heard", default=None)
"""Log records of the call under way, which travel back with its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedKind:
    """The worker processes of one kind, as every Dask worker that has the resource starts them."""

    kind: WorkerKind
    device: str
    """auto, cpu, cuda or cuda:N, as the Dask worker sees them."""
    setup: WorkerSetup | None
    threads: int | None
    limits: PoolLimits
    log_level: int


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a call: the pickle of its answer, or of its error."""

    answer: bytes | None
    error: bytes | None
    logs: tuple[WorkerLog, ...]
    worker: str
    """Address of the Dask worker that says so."""


def call_here(plugin: str, kind: WorkerKind, request: bytes, what: str, deadline_s: Seconds | None) -> Told:
    """The task that Dask runs, for every order: hands it to a worker process of this Dask worker."""
    worker = get_worker()
    hosted = worker.plugins.get(plugin)
    if not isinstance(hosted, HostedWorkers):
        raise ClusterUnavailable(f"Dask worker {worker.address} does not know the run (was the scheduler restarted?)")
    return hosted.call(kind, request, what, deadline_s)


class HostedWorkers(WorkerPlugin):
    """Registered by a run under its own name, so that Dask workers that join later get it too."""

    def __init__(self, name: str, kinds: tuple[HostedKind, ...]) -> None:
        self.name = name
        self._kinds = {recipe.kind: recipe for recipe in kinds}
        self._version = __version__

    async def setup(self, worker: Any) -> None:
        """Starts loading at once, and does not wait for it. What is wrong here is told to the first call."""
        self._worker = worker
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self._over = threading.Event()
        self._pools: dict[WorkerKind, WorkerPool] = {}
        self._running = 0
        self._used_at_s = time.monotonic()
        await asyncio.to_thread(self._open)

    async def teardown(self, worker: Any) -> None:
        del worker
        self._over.set()
        await asyncio.to_thread(self._end_processes)

    def call(self, kind: WorkerKind, request: bytes, what: str, deadline_s: Seconds | None) -> Told:
        """The answer or error of one call. Raises Reschedule, for Dask, when this worker is being closed."""
        logs: list[WorkerLog] = []
        _heard.set(logs)
        self._opened.wait()
        with self._lock:
            self._running += 1
        try:
            answer = self._pool(kind).send(request, what=what, deadline_s=deadline_s)
            return Told(answer, None, tuple(logs), self._worker.address)
        except PoolClosed as error:
            raise Reschedule from error
        except Exception as error:  # noqa: BLE001 - whatever it is, it travels to the flow as it would from a process
            address = self._worker.address
            return Told(None, pack_error(error, where=f"Dask worker {address}"), tuple(logs), address)
        finally:
            with self._lock:
                self._running -= 1
                self._used_at_s = time.monotonic()

    def _open(self) -> None:
        sweep(Path(tempfile.gettempdir()))
        try:
            for kind in self._kinds:
                if self._count(kind):
                    self._pool(kind).warm_up()
        except Exception:  # the first call raises it again, where somebody reads it
            log.exception("the worker processes of %s cannot be started", self.name)
        finally:
            self._opened.set()
        threading.Thread(target=self._watch, name=f"idle {self.name}", daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(min(60.0, IDLE_S / 4)):
            with self._lock:
                idle = not self._running and time.monotonic() - self._used_at_s > IDLE_S
            if idle and self._pools:
                log.info("no call for %.0f s: the worker processes of %s are ended", IDLE_S, self.name)
                self._end_processes()

    def _end_processes(self) -> None:
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.kill()

    def _count(self, kind: WorkerKind) -> int:
        return int(self._worker.state.total_resources.get(RESOURCE[kind], 0))

    def _pool(self, kind: WorkerKind) -> WorkerPool:
        if self._version != __version__:
            raise BackendUnavailable(
                f"Dask worker {self._worker.address} has Nightscribe {__version__}, the run {self._version}: "
                "install the same on every machine"
            )
        with self._lock:
            if self._over.is_set():
                raise PoolClosed(f"Dask worker {self._worker.address} is being closed.")
            if kind not in self._pools:
                recipe = self._kinds[kind]
                pool = WorkerPool(
                    kind,
                    self._devices(recipe),
                    setup=recipe.setup,
                    threads=recipe.threads,
                    limits=recipe.limits,
                    log_level=recipe.log_level,
                    on_log=_hear,
                    on_load=self._tell,
                )
                self._pools[kind] = pool
            return self._pools[kind]

    def _devices(self, recipe: HostedKind) -> tuple[str, ...]:
        count = self._count(recipe.kind)
        if recipe.kind == "cpu":
            return ("cpu",) * count
        devices = choose_devices(recipe.device)
        if len(devices) > count:
            raise DeviceUnavailable(
                f"Dask worker {self._worker.address} sees {len(devices)} devices and has GPU={count}: start one "
                "`dask worker` per device, each with its own CUDA_VISIBLE_DEVICES, or give it "
                f"--resources GPU={len(devices)}"
            )
        return tuple(devices[number % len(devices)] for number in range(count))

    def _tell(self, load: WorkerLoad) -> None:
        """To whoever counts the loads: the run, by an event under its name."""
        told = {"kind": load.kind, "device": load.device, "pid": load.pid, "load_s": load.load_s}
        self._worker.log_event(self.name, told | {"worker": self._worker.address})


def _hear(record: WorkerLog) -> None:
    logs = _heard.get()
    if logs is None:
        log_here(record)
    else:
        logs.append(record)
