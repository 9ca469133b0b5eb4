"""What ctranslate2 can run on here, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stt_engine.errors import DeviceFailed, DeviceOutOfMemory, DeviceUnavailable, UnsupportedOption

_OUT_OF_MEMORY_SIGNS = ("out of memory", "alloc_failed", "failed to allocate", "bad_alloc")
_DEVICE_SIGNS = ("cuda", "cublas", "cudnn")


def resolve_device(device: str) -> str:
    """cpu, cuda or cuda:N for what the user asked for. Raises DeviceUnavailable."""
    import ctranslate2

    kind, separator, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (separator and (kind != "cuda" or not number.isdigit())):
        raise DeviceUnavailable(f"device {device!r} is unknown: choose auto, cpu, cuda or cuda:N")
    n_gpus = ctranslate2.get_cuda_device_count() if kind != "cpu" else 0
    if kind == "auto":
        return "cuda" if n_gpus else "cpu"
    if kind == "cuda" and int(number or 0) >= n_gpus:
        found = f"ctranslate2 sees {n_gpus} CUDA devices" if n_gpus else "ctranslate2 sees no CUDA device"
        raise DeviceUnavailable(f"device {device}: {found}; choose --device cpu, or check nvidia-smi and the driver")
    return device


def resolve_compute_type(compute_type: str, kind: str, index: int) -> str:
    """A type that the device has. Raises UnsupportedOption, which names those it has."""
    import ctranslate2

    supported = ctranslate2.get_supported_compute_types(kind, index)
    if compute_type == "auto":
        return "float16" if kind == "cuda" and "float16" in supported else "float32"
    if compute_type not in supported:
        raise UnsupportedOption(
            f"compute type {compute_type!r} is not one that faster-whisper has on this {kind}: "
            f"choose auto, {', '.join(sorted(supported))}"
        )
    return compute_type


def is_device_error(error: Exception) -> bool:
    message = str(error).lower()
    return any(sign in message for sign in (*_OUT_OF_MEMORY_SIGNS, *_DEVICE_SIGNS))


@contextmanager
def device_errors(device: str) -> Iterator[None]:
    """DeviceOutOfMemory or DeviceFailed for what ctranslate2 raises as RuntimeError; its text tells which."""
    try:
        yield
    except MemoryError as error:
        raise DeviceOutOfMemory(f"{device}: out of memory; use smaller device batches or compute type") from error
    except RuntimeError as error:
        message = str(error)
        if any(sign in message.lower() for sign in _OUT_OF_MEMORY_SIGNS):
            raise DeviceOutOfMemory(f"{device}: {message}; use smaller device batches or compute type") from error
        if any(sign in message.lower() for sign in _DEVICE_SIGNS):
            raise DeviceFailed(f"{device}: {message}") from error
        raise
