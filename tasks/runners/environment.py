"""The environment that a worker is born into.

Set by whoever starts the process, so it is there before its first import: CUDA reads CUDA_VISIBLE_DEVICES once,
OpenMP its thread count at the loading of the library.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence

from stt_engine.errors import UsageError

_CUDA_DEVICE = re.compile(r"cuda(?::(\d+))?")
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def device_inside(device: str) -> str:
    """What a worker calls its own device: cuda:0 whichever it is, since it sees no other; or cpu.

    Raises UsageError for anything but cpu, cuda and cuda:N.
    """
    if device == "cpu":
        return "cpu"
    if _CUDA_DEVICE.fullmatch(device):
        return "cuda:0"
    raise UsageError(f"Device {device!r} is not one a worker can be pinned to: use cpu, cuda or cuda:N.")


def worker_environment(
    device: str, *, threads: int, inherited: Mapping[str, str], sys_path: Sequence[str]
) -> dict[str, str]:
    """Environment of one worker: its device alone visible, thread pools capped, imports found as they are here.

    Where CUDA_VISIBLE_DEVICES is set already (a scheduler lent us some), cuda:N is the Nth of those.
    """
    device_inside(device)
    environment = dict(inherited)
    environment["CUDA_VISIBLE_DEVICES"] = _visible_device(device, inherited.get("CUDA_VISIBLE_DEVICES"))
    for variable in _THREAD_VARIABLES:
        environment[variable] = str(threads)
    # Spectrograms are numpy's only products: small, and a thread for each window. OpenBLAS would spread each over all
    # cores, whose threads then spin while the encoder wants them: a third more time for a window of a small model.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    # Workers are processes already; the tokenizers library warns and slows down when it forks threads below them.
    environment["TOKENIZERS_PARALLELISM"] = "false"
    # glibc gives every thread an arena of its own, and each keeps what its largest batch took.
    environment.setdefault("MALLOC_ARENA_MAX", "2")
    # Python drops an empty path (the current folder) from PYTHONPATH's meaning, hence the absolute one.
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys_path)
    return environment


def _visible_device(device: str, lent: str | None) -> str:
    if device == "cpu":
        return ""
    match = _CUDA_DEVICE.fullmatch(device)
    assert match is not None
    index = int(match.group(1) or 0)
    if lent is None:
        return str(index)
    devices = [name.strip() for name in lent.split(",") if name.strip()]
    if index >= len(devices):
        raise UsageError(
            f"Device {device} does not exist: CUDA_VISIBLE_DEVICES={lent!r} lends {len(devices)} device(s), "
            "counted from cuda:0."
        )
    return devices[index]


def threads_per_worker(workers: int) -> int:
    """Cores shared out evenly, at least one each."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // max(1, workers))
