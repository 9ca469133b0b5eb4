"""Where torch works and in what precision, and what its failures are called here.

Imports torch inside its functions: the base install has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stt_engine.devices import usable_cores
from stt_engine.errors import (
    BackendUnavailable,
    DeviceFailed,
    DeviceOutOfMemory,
    DeviceUnavailable,
    UnsupportedOption,
)
from stt_engine.types import BackendName

if TYPE_CHECKING:
    import torch

COMPUTE_TYPES = ("float32", "float16", "bfloat16")

_CPU_MEMORY_MARKS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")
_GPU_MEMORY_MARKS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_GPU_MARKS = ("CUDA", "CUBLAS", "cuBLAS", "cuDNN", "CUDNN", "NVRTC", "CUSOLVER")


def missing_package(backend: BackendName, error: ImportError) -> BackendUnavailable:
    """What to raise when a backend's package cannot be imported."""
    return BackendUnavailable(f"backend {backend}: {error}; install it with: pip install 'nightscribe[all]'")


def torch_device(device: str) -> torch.device:
    """The device of "auto", "cpu", "cuda" or "cuda:N"; auto is CUDA where there is any.

    Raises DeviceUnavailable when it is not there.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise DeviceUnavailable(f"device {device!r} is unknown: say auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        if not torch.cuda.is_available():
            build = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
            raise DeviceUnavailable(f"device {device!r}: {build} (nvidia-smi shows what is there); use device cpu")
        count = torch.cuda.device_count()
        if index and int(index) >= count:
            raise DeviceUnavailable(f"device {device!r}: torch sees {count} CUDA devices, numbered from 0")
    return torch.device(device)


def torch_dtype(compute_type: str, device: torch.device, backend: BackendName) -> torch.dtype:
    """The dtype of a compute type; "auto" is float16 on CUDA and float32 on the CPU, where half precision is slower.

    Raises UnsupportedOption, naming those that are supported.
    """
    import torch

    if compute_type == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if compute_type not in COMPUTE_TYPES:
        raise UnsupportedOption(
            f"compute type {compute_type!r}: the {backend} backend has {', '.join(COMPUTE_TYPES)} and auto; "
            f"int8 is for faster-whisper"
        )
    dtype: torch.dtype = getattr(torch, compute_type)
    return dtype


def set_cpu_threads(cpu_threads: int, device: torch.device) -> int:
    """Fix torch's threads for this process, never left to torch; returns how many.

    0 means half of the cores that this process may run on where the model runs on the CPU, at least one, and one
    where it runs on a GPU. Threads that wait for each other at every small step lose more than they gain as soon as
    they share their cores: 30 windows of the fixture, on two cores busy with other work, took 0.8 s with one thread
    and 1.6 to 8.7 s with two. The other half is for those who feed.
    """
    import torch

    if cpu_threads <= 0:
        cpu_threads = max(1, usable_cores() // 2) if device.type == "cpu" else 1
    torch.set_num_threads(cpu_threads)
    return cpu_threads


def free_bytes(device: torch.device) -> int:
    """What a CUDA device has left, with what this process holds without using it."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


@contextmanager
def device_errors(device: str, what: str) -> Iterator[None]:
    """Map torch's failures while doing `what` to DeviceOutOfMemory (fewer windows may fit) and DeviceFailed."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceOutOfMemory(_out_of_memory(device, what, error)) from error
    except RuntimeError as error:
        message = str(error)
        if any(mark in message for mark in _CPU_MEMORY_MARKS):
            raise DeviceOutOfMemory(_out_of_memory(device, what, error)) from error
        if device.startswith("cuda") and any(mark in message for mark in _GPU_MARKS):
            if any(mark in message for mark in _GPU_MEMORY_MARKS):
                raise DeviceOutOfMemory(_out_of_memory(device, what, error)) from error
            first_line = message.splitlines()[0]
            raise DeviceFailed(
                f"{device} failed while {what}: {first_line}; restart the worker, and look at dmesg if it comes again"
            ) from error
        raise


def _out_of_memory(device: str, what: str, error: BaseException) -> str:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"{device} ran out of memory while {what}: use smaller device batches, fewer workers to a device, "
        f"or a smaller model ({said})"
    )
