"""A run whose workers are on a Dask cluster: what has to be true before it starts, and its task runner."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stt_engine.errors import BackendUnavailable, UsageError
from stt_engine.models import FIXTURE
from stt_engine.models.names import find_known
from tasks.settings import RunSettings

if TYPE_CHECKING:
    from tasks.prepare import PreparedRun
    from tasks.runners.dask_task_runner import DaskTaskRunner


def check_dask(settings: RunSettings) -> None:
    """What is wrong with a run that asks for Dask, before it connects anywhere.

    A cluster that is there may be of other machines: what its workers read must be where they find it.

    Raises UsageError, BackendUnavailable.
    """
    if importlib.util.find_spec("distributed") is None:
        raise BackendUnavailable(
            "--task-runner dask: the package distributed is not installed; "
            "install it with: pip install 'nightscribe[dask]'"
        )
    if settings.dask_address is None:
        return
    spool = settings.advanced.spool
    if spool is None or "://" not in spool or spool.startswith("memory://"):
        raise UsageError(
            f"--spool {spool or '(a folder of this machine)'}: the workers at {settings.dask_address} cannot read it; "
            "name a store that all of them reach, e.g. --spool s3://BUCKET/spool, or file:///FOLDER on a shared disk"
        )
    if "://" not in settings.source:
        raise UsageError(
            f"SOURCE {settings.source}: the workers at {settings.dask_address} may be on machines that do not have it; "
            f"name a store, or write file://{Path(settings.source).absolute()} if every machine has that folder"
        )


def model_for_workers(model: str, path: Path) -> str:
    """What workers elsewhere resolve for themselves: a name, which each machine fetches once, or a directory."""
    name = model == FIXTURE or find_known(model) is not None or not Path(model).expanduser().exists()
    return model if name else str(path)


def dask_task_runner(run: PreparedRun, **usual: Any) -> DaskTaskRunner:
    """`usual`: what a runner on this machine would be made with."""
    from tasks.runners.dask_cluster import ClusterChoice
    from tasks.runners.dask_task_runner import DaskTaskRunner

    settings = run.settings
    if settings.dask_address is not None:
        return DaskTaskRunner(choice=ClusterChoice(address=settings.dask_address), device=settings.device, **usual)
    choice = ClusterChoice(
        address=None,
        devices=run.devices,
        gpu_workers_per_device=settings.gpu_workers,
        cpu_workers=run.cpu_workers,
    )
    # An own worker sees one device and calls it cuda:0, whichever it is.
    return DaskTaskRunner(choice=choice, device="cpu" if run.devices == ("cpu",) else "cuda", **usual)
