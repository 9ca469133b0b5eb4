"""The task runner with its workers on a Dask cluster: the same tasks, bodies, loader, errors and retries.

Prefect's engine stays in the flow's threads. prefect-dask's runner would run it in the workers: each would have to
reach Prefect's server, a file that waits for its retry would hold a GPU meanwhile, and a worker's death would end the
task run that counts its retries.
"""

from __future__ import annotations

from typing import Any

from tasks.night_terms import CrewSize
from tasks.runners.dask_cluster import ClusterChoice
from tasks.runners.dask_pool import DaskCluster, DaskPool
from tasks.runners.dask_worker import HostedKind
from tasks.runners.gpu_task_runner import GpuTaskRunner, Workers, forward_log
from tasks.runners.lanes import Lane

MOST_THREADS = 2048
"""Orders under way in each lane; threads start as they are needed."""


class DaskTaskRunner(GpuTaskRunner):
    """`settings` as for `GpuTaskRunner`, of which the limits and deadlines hold in every Dask worker."""

    def __init__(self, *, choice: ClusterChoice, device: str, **settings: Any) -> None:
        """device: what a GPU worker takes, of what it sees: auto, cpu, cuda or cuda:N."""
        super().__init__(**{"threads": MOST_THREADS} | settings)
        self._choice = choice
        self._device = device
        self._cluster: DaskCluster | None = None

    @property
    def size(self) -> CrewSize:
        found = CrewSize(0, 0) if self._cluster is None else self._cluster.size
        # Orders wait at the scheduler while a cluster has no worker; after a while somebody gives up for them.
        return CrewSize(max(1, found.gpu_workers), max(1, found.cpu_workers))

    def _named(self) -> dict[str, Any]:
        return super()._named() | {"choice": self._choice, "device": self._device}

    def _make_pools(self) -> dict[Lane, Workers]:
        chosen = self._settings
        kinds = (
            HostedKind(
                kind="gpu",
                device=self._device,
                setup=chosen.gpu_setup,
                threads=chosen.gpu_threads_per_worker,
                limits=chosen.gpu_limits,
                log_level=chosen.log_level,
            ),
            HostedKind(
                kind="cpu",
                device="cpu",
                setup=chosen.cpu_setup,
                threads=chosen.cpu_threads_per_worker,
                limits=chosen.cpu_limits,
                log_level=chosen.log_level,
            ),
        )
        self._cluster = DaskCluster(self._choice, kinds)
        return {
            Lane.GPU: DaskPool("gpu", self._cluster, forward_log),
            Lane.CPU: DaskPool("cpu", self._cluster, forward_log),
        }
