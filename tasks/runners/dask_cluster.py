"""Which Dask cluster a run uses: one of its own on this machine, or one that is there, by its address."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster

from stt_engine.errors import BackendUnavailable
from stt_engine.types import Seconds
from tasks.night_terms import CrewSize
from tasks.redaction import redacted
from tasks.runners.dask_worker import RESOURCE
from tasks.runners.environment import worker_environment

CONNECT_S: Seconds = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterChoice:
    address: str | None
    """Of the scheduler; None: a cluster of this run's own."""
    devices: tuple[str, ...] = ()
    """Of an own cluster: a Dask worker for each."""
    gpu_workers_per_device: int = 1
    cpu_workers: int = 1


def connect(choice: ClusterChoice) -> tuple[Client, SpecCluster | None]:
    """The client, and the cluster where it is the run's own.

    Raises BackendUnavailable where no scheduler answers.
    """
    logging.getLogger("distributed").setLevel(logging.WARNING)  # at INFO it tells of every connection
    if choice.address is None:
        cluster = own_cluster(choice)
        return Client(cluster, set_as_default=False), cluster
    try:
        return Client(choice.address, timeout=CONNECT_S, set_as_default=False), None
    except Exception as error:  # time-outs, refused connections, TLS, names that do not resolve
        raise BackendUnavailable(
            f"--dask-address {choice.address}: no Dask scheduler answers there "
            f"({type(error).__name__}: {redacted(' '.join(str(error).split()))}); start one with: dask scheduler"
        ) from error


def own_cluster(choice: ClusterChoice) -> SpecCluster:
    """A scheduler in this process, a Nanny and a Dask worker per device, and one for everything that needs no device.

    Memory is not the Nannies' to limit: it is the worker processes below them that hold it, under limits of their own.
    """
    scratch = os.path.join(tempfile.gettempdir(), "nightscribe-dask")
    usual: dict[str, Any] = {
        "memory_limit": 0,
        "host": "127.0.0.1",
        "dashboard": False,
        "local_directory": scratch,
        "config": {"logging": {"distributed": "warning"}},
    }
    workers: dict[str, Any] = {}
    for number, device in enumerate(choice.devices):
        count = choice.gpu_workers_per_device
        pinned = worker_environment(device, threads=1, inherited=os.environ, sys_path=sys.path)
        workers[f"gpu-{number}"] = _nanny(
            "gpu", count, usual | {"env": {"CUDA_VISIBLE_DEVICES": pinned["CUDA_VISIBLE_DEVICES"]}}
        )
    workers["cpu"] = _nanny("cpu", choice.cpu_workers, usual | {"env": {"CUDA_VISIBLE_DEVICES": ""}})
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    with dask.config.set({"distributed.scheduler.worker-ttl": "60 s"}):
        return SpecCluster(workers=workers, scheduler=scheduler, silence_logs="ERROR")


def _nanny(kind: Any, count: int, options: dict[str, Any]) -> dict[str, Any]:
    return {"cls": Nanny, "options": {**options, "nthreads": count, "resources": {RESOURCE[kind]: count}}}


def size_of(client: Client) -> CrewSize:
    """How many orders it can work on at once, by the resources of its Dask workers.

    Raises OSError or TimeoutError where the scheduler does not answer."""
    if client.scheduler is None:
        raise TimeoutError("not connected")
    told = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=CONNECT_S)
    resources = [worker["resources"] for worker in told["workers"].values()]
    gpu, cpu = (int(sum(found.get(RESOURCE[kind], 0) for found in resources)) for kind in ("gpu", "cpu"))
    return CrewSize(gpu, cpu)
