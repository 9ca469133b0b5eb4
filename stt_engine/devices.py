"""Which devices there are."""

from __future__ import annotations

import os

from stt_engine.errors import DeviceUnavailable


def usable_cores() -> int:
    """Those this process may use, which in a container or a pinned worker are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cuda_devices() -> tuple[str, ...]:
    """The CUDA devices that this process may use, as cuda:N."""
    import ctranslate2

    count = ctranslate2.get_cuda_device_count()
    if count == 0 and os.path.exists("/dev/nvidiactl"):
        try:
            import torch
        except ImportError:
            return ()
        count = torch.cuda.device_count()
    return tuple(f"cuda:{number}" for number in range(count))


def choose_devices(device: str) -> tuple[str, ...]:
    """The devices for a choice of auto, cpu, cuda or cuda:N; auto is every CUDA device, else the CPU.

    Raises:
        DeviceUnavailable: CUDA is asked for and not there.
    """
    if device == "cpu":
        return ("cpu",)
    found = cuda_devices()
    if device == "auto":
        return found or ("cpu",)
    if not found:
        raise DeviceUnavailable(
            f"device {device!r}: no CUDA device is visible; check the driver with nvidia-smi, or use --device cpu"
        )
    if device == "cuda":
        return found
    if device not in found:
        raise DeviceUnavailable(f"device {device!r}: there are {', '.join(found)}")
    return (device,)
