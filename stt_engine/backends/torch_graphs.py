"""A step of the decoder recorded once as a CUDA graph and replayed, instead of launched kernel by kernel.

A step of large-v3 is some thousand small kernels: to launch them takes the host longer than to run them takes the GPU.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)

_ROOM_BYTES = 2**30
"""While a step is recorded nothing that is kept for reuse can be given back, so there must be this much beside it."""


class StepGraphs:
    """Records steps on one device; all recordings share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)
        # A pool is gone with its last graph, and torch does not let it be used again: this one stays.
        self._anchor = self._captured(lambda: torch.zeros(1, device=device).add_(1))

    def recorded(self, step: Callable[[], object]) -> Callable[[], object]:
        """What does as `step` does, on the tensors that it finds there now; `step` itself is recorded, not run.

        One recording is in use at a time: a new one may write where the one before it kept what it had reckoned.
        Where it cannot be recorded, for want of memory, this is `step` itself.
        """
        if torch.cuda.mem_get_info(self._device)[0] < _ROOM_BYTES:
            torch.cuda.empty_cache()
        try:
            replay: Callable[[], object] = self._captured(step).replay
        except RuntimeError as error:
            log.warning("a step of the decoder could not be recorded, and is launched each time: %s", error)
            return step
        return replay

    def _captured(self, step: Callable[[], object]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        # thread_local: another thread may send samples meanwhile. torch.cuda.graph would collect garbage and empty
        # the allocator's cache each time, slower than the batch itself.
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                step()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # that the recording came to nothing is known
                    graph.capture_end()
                raise
            graph.capture_end()
        current.wait_stream(self._stream)
        return graph
