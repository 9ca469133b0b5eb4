"""What a GPU worker does: load the model once, then transcribe orders until it is told to end. No Prefect here.

The loader is a module-level function on purpose: a cache in a global of a `@task`'s own module is pickled by value and
loads the model again at every task.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stt_engine import models
from stt_engine.backends.base import Backend
from stt_engine.decoding import ChunkDecoder
from stt_engine.errors import ModelFormatError
from stt_engine.loading import AUTO_ORDER, load_backend, load_first
from tasks.orders import TranscribedChunks, TranscribeOrder
from tasks.runners.lanes import on_gpu_worker
from tasks.runners.worker import loaded
from tasks.spool import read_chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSetup:
    """What a worker loads; the device is the one that it is pinned to."""

    model_path: str
    backend: str = "auto"
    compute_type: str = "auto"
    cpu_threads: int = 0
    device_batch_windows: int = 0
    """0: as many as the backend finds usual for its device."""
    workers_on_device: int = 1
    """They share its memory."""
    fingerprint: str | None = None
    """Of the weights that the run stands for; None: `model_path` is the very one that it has looked at."""


@dataclass(slots=True, eq=False)
class LoadedModel:
    backend: Backend
    device_batch_windows: int
    """Less than was asked for once a batch did not fit: that the next one would not either is known by then."""


def load_model(device: str, setup: ModelSetup) -> LoadedModel:
    """A worker's loader: called once in each process, on the device that it was pinned to (cpu or cuda:0)."""
    path = setup.model_path if setup.fingerprint is None else str(_same_weights(setup.model_path, setup.fingerprint))
    options: dict[str, Any] = {"device": device, "compute_type": setup.compute_type, "cpu_threads": setup.cpu_threads}
    if setup.backend == "auto":
        backend, _ = load_first(AUTO_ORDER, path, **options)
    else:
        backend = load_backend(setup.backend, path, **options)
    windows = setup.device_batch_windows or max(1, backend.usual_batch // setup.workers_on_device)
    return LoadedModel(backend, windows)


def _same_weights(model: str, fingerprint: str) -> Path:
    """The model on this machine, which may be another than the flow's; rows name the weights that they stand for.

    Raises ModelNotFound; ModelFormatError where other weights bear the name here.
    """
    path = models.resolve(model)
    found = models.fingerprint(path)
    if found != fingerprint:
        raise ModelFormatError(
            f"model {model} on {socket.gethostname()} ({path}) has the weights {found}, on the flow's machine "
            f"{fingerprint}: give every machine the same directory, and name that with --model"
        )
    return path


@on_gpu_worker
def transcribe_order(order: TranscribeOrder) -> TranscribedChunks:
    """Read the order's chunks from the spool and transcribe them with the loaded model."""
    model: LoadedModel = loaded()
    started = time.perf_counter()
    audio = read_chunks(order.chunks)
    read_s = time.perf_counter() - started
    decoder = ChunkDecoder(model.backend, order.options, device_batch_windows=model.device_batch_windows)
    try:
        transcripts = decoder.transcribe(audio, order.languages)
    finally:
        model.device_batch_windows = decoder.device_batch_windows
    transcribe_s, spent = time.perf_counter() - started - read_s, decoder.times.seconds
    return TranscribedChunks(
        transcripts=tuple(transcripts),
        backend=model.backend.name,
        compute_type=model.backend.compute_type,
        worker_pid=os.getpid(),
        timings_s={"read": read_s, **spent, "texts": max(0.0, transcribe_s - sum(spent.values()))},
    )
