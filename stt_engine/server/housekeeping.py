"""Memory given back now and then, when nobody waits: a server that runs for weeks must not creep."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import Any

from stt_engine.child_process import resident_bytes_of

BATCHES_BETWEEN = 100


class Housekeeping:
    """`after_batch` is cheap except once in `BATCHES_BETWEEN` calls, and then only when idle."""

    def __init__(self) -> None:
        self._batches = 0

    def after_batch(self, *, idle: bool) -> None:
        self._batches += 1
        if idle and self._batches >= BATCHES_BETWEEN:
            self._batches = 0
            give_memory_back()


def give_memory_back() -> None:
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        # glibc keeps what threads have freed in arenas of their own; musl has no such function and needs none.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def resident_bytes() -> int | None:
    """Resident memory of this process; None where the system does not tell."""
    return resident_bytes_of(os.getpid())
