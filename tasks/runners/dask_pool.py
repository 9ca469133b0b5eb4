"""The workers of a Dask cluster, lent as those of this machine are: one order at a time, answers and errors alike.

Which worker takes an order, and what becomes of it when that worker is gone, is Dask's business: an order asks for one
GPU or one CPU of a worker's resources, and that is all that Dask is told.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import cloudpickle
from distributed import Client, SpecCluster

from stt_engine.errors import BackendUnavailable, ClusterUnavailable, NightscribeError
from stt_engine.types import Seconds
from tasks.night_terms import CrewSize
from tasks.runners.dask_cluster import ClusterChoice, connect, size_of
from tasks.runners.dask_worker import RESOURCE, HostedKind, HostedWorkers, Told, call_here
from tasks.runners.pool import PoolClosed, WorkerKind, read_answer
from tasks.runners.wire import Call, WorkerLog, reference, unpack_error
from tasks.runners.worker_process import WorkerLoad

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

LOOK_S: Seconds = 2.0
"""Between two looks at what workers there are."""
PATIENCE_S: Seconds = 120.0
"""How long orders may wait for a cluster that has no worker for them, or whose scheduler does not answer."""
END_S: Seconds = 15.0
"""How long the end of a run waits for workers to end its processes."""


class DaskCluster:
    """One run's connection, shared by its two pools; nothing is started before it is wanted. Thread safe."""

    def __init__(self, choice: ClusterChoice, kinds: tuple[HostedKind, ...]) -> None:
        self._choice = choice
        self._plugin = HostedWorkers(f"nightscribe-{uuid.uuid4().hex[:12]}", kinds)
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._client: Client | None = None
        self._cluster: SpecCluster | None = None
        self._closing = threading.Event()
        self._open: dict[Future[None], Any] = {}
        """Turns that callers wait for, and Dask's future of each."""
        self._loads: list[WorkerLoad] = []
        self._size = CrewSize(0, 0)

    @property
    def size(self) -> CrewSize:
        """What the cluster had a moment ago; workers may come and go."""
        return self._size

    @property
    def loads(self) -> list[WorkerLoad]:
        with self._lock:
            return list(self._loads)

    def start(self) -> Client:
        """Connects, and lets every worker begin to load. Raises BackendUnavailable, and PoolClosed at the end."""
        with self._starting:
            if self._closing.is_set():
                raise _closed()
            if self._client is None:
                client, self._cluster = connect(self._choice)
                self._client = client
                client.subscribe_topic(self._plugin.name, self._heard_of)
                try:
                    client.register_plugin(self._plugin)
                except Exception as error:  # whatever the workers' setting up raises, an import as a rule
                    raise _not_installed(error) from error
                self._size = size_of(client)
                threading.Thread(target=self._watch, args=(client,), name="dask-watch", daemon=True).start()
            return self._client

    def ask(self, kind: WorkerKind, request: bytes, *, what: str, deadline_s: Seconds | None) -> Told:
        """What a worker process of the cluster says to one call. Raises ClusterUnavailable, BackendUnavailable."""
        client = self.start()
        turn: Future[None] = Future()
        try:
            future = client.submit(
                call_here, self._plugin.name, kind, request, what, deadline_s,
                key=f"{kind}-{uuid.uuid4().hex}", resources={RESOURCE[kind]: 1}, pure=False,
            )  # fmt: skip
        except Exception as error:  # the client is closed, since its scheduler is gone for good
            raise self._lost(error) from error
        with self._lock:
            self._open[turn] = future
        if self._closing.is_set():
            self._end_turn(turn, _closed())
        future.add_done_callback(lambda _: self._end_turn(turn, None))
        try:
            turn.result()
            told: Told = future.result()
            return told
        except NightscribeError:
            raise
        except ImportError as error:
            raise _not_installed(error) from error
        except BaseException as error:  # KilledWorker, CancelledError (no Exception), time-outs: Dask's own
            if not isinstance(error, Exception) and "Cancelled" not in type(error).__name__:
                raise
            if self._closing.is_set():
                raise _closed() from error
            raise self._lost(error) from error
        finally:
            with self._lock:
                self._open.pop(turn, None)
            future.release()

    def end(self) -> None:
        """Frees every caller, ends the run's processes on all workers, and an own cluster. May be called twice."""
        self._closing.set()
        self._turn_away(_closed())
        with self._starting:
            client, self._client = self._client, None
            cluster, self._cluster = self._cluster, None
        if client is None:
            return
        try:
            client.sync(client._unregister_worker_plugin, self._plugin.name, callback_timeout=END_S)
        except Exception as error:  # noqa: BLE001 - a scheduler that is gone; its workers end idle processes themselves
            log.warning("the cluster was not told that the run is over: %s", error)
        client.close(timeout=10)
        if cluster is not None:
            cluster.close(timeout=10)

    def _lost(self, error: BaseException) -> NightscribeError:
        return ClusterUnavailable(
            f"the Dask cluster did not finish it ({type(error).__name__}: {' '.join(str(error).split())[:300]}); "
            "look at the scheduler's log"
        )

    def _end_turn(self, turn: Future[None], error: Exception | None) -> None:
        with self._lock:
            if turn.done():
                return
            if error is None:
                turn.set_result(None)
            else:
                turn.set_exception(error)

    def _turn_away(self, error: Exception) -> None:
        with self._lock:
            turns = dict(self._open)
        for turn, future in turns.items():
            self._end_turn(turn, error)
            future.cancel()

    def _heard_of(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, told = event
        load = WorkerLoad(told["kind"], f"{told['device']} of {told['worker']}", told["pid"], told["load_s"])
        with self._lock:
            self._loads.append(load)

    def _watch(self, client: Client) -> None:
        """Nobody else would notice that orders wait for workers that do not exist."""
        seen_s = {kind: time.monotonic() for kind in RESOURCE}
        while not self._closing.wait(LOOK_S):
            try:
                size = size_of(client)
            except Exception as error:  # noqa: BLE001 - whatever the comm raises, and a client that is closed
                log.debug("the Dask scheduler does not answer: %s", error)
                size = CrewSize(0, 0)
            else:
                if size != self._size:
                    log.info("the cluster has %d GPU and %d CPU workers", size.gpu_workers, size.cpu_workers)
                self._size = size
            now_s = time.monotonic()
            for kind, count in (("gpu", size.gpu_workers), ("cpu", size.cpu_workers)):
                if count:
                    seen_s[kind] = now_s  # type: ignore[index]
            for kind, resource in RESOURCE.items():
                if now_s - seen_s[kind] > PATIENCE_S:
                    self._turn_away(
                        BackendUnavailable(
                            f"the Dask cluster at {self._choice.address or 'this machine'} has had no worker with the "
                            f"resource {resource} for {PATIENCE_S:.0f} s; start one with: dask worker ADDRESS "
                            f'--nthreads 1 --memory-limit 0 --resources "{resource}=1"'
                        )
                    )


class DaskPool:
    """The cluster's workers of one kind."""

    def __init__(self, kind: WorkerKind, cluster: DaskCluster, on_log: Callable[[WorkerLog], None]) -> None:
        self.kind = kind
        self._cluster = cluster
        self._on_log = on_log

    @property
    def loads(self) -> list[WorkerLoad]:
        return [load for load in self._cluster.loads if load.kind == self.kind]

    def warm_up(self) -> None:
        self._cluster.start()

    def call(
        self,
        function: Callable[..., Answer],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        deadline_s: Seconds | None = None,
        what: str | None = None,
    ) -> Answer:
        """As `WorkerPool.call`; besides, ClusterUnavailable where Dask gives an order back unfinished."""
        name = reference(function)
        request = cloudpickle.dumps(Call(name, tuple(args), dict(kwargs or {})))
        told = self._cluster.ask(self.kind, request, what=what or name, deadline_s=deadline_s)
        log.debug("%s was done by %s", what or name, told.worker)
        for record in told.logs:
            self._on_log(record)
        if told.answer is None:
            assert told.error is not None
            raise unpack_error(told.error)
        answer: Answer = read_answer(told.answer, what or name)
        return answer

    def close(self, grace_s: Seconds = 5.0) -> None:
        del grace_s  # whoever closes has no call under way any more
        self._cluster.end()

    def kill(self) -> None:
        self._cluster.end()


def _closed() -> PoolClosed:
    return PoolClosed("The run's workers on the Dask cluster are being ended.")


def _not_installed(error: Exception) -> BackendUnavailable:
    return BackendUnavailable(
        f"a Dask worker cannot run Nightscribe ({type(error).__name__}: {error}); install it on every worker of the "
        "cluster, in the same version: pip install 'nightscribe[dask]'"
    )
