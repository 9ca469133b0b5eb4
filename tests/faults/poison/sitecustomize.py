"""Bodies of workers that misbehave for files of certain names: the folder of this file on PYTHONPATH is the hook.

Python imports it at the start of every interpreter; it does something only in a worker of a run, or a splitting process
of the service, with POISON_JOURNAL, and only there where a decoder or a model works: in the iteration of the stream
that the splitter decodes, and in the call of the model's encoder. `segfault`, `spin`, `eat`, `hang` and `leak` are what
they say. A name says who suffers: `cpu-segfault.flac`, `gpu-hang.flac`, `gpu-segfault@2.flac` (in its third chunk).

The journal gets a line for each order and each device batch, written before anything can go wrong.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from pathlib import PurePosixPath
from typing import Any

MIB = 1 << 20


def misbehave(how: str) -> None:
    if how == "segfault":
        import ctypes

        ctypes.string_at(0)
    elif how == "spin":
        re.match(r"(a+)+$", "a" * 60 + "b")  # native code that keeps the interpreter's lock for ever
    elif how == "eat":
        held = []
        while len(held) < 64:  # 4 GiB, should nobody stop it
            held.append(bytearray(os.urandom(1) * (64 * MIB)))
    elif how == "hang":
        threading.Event().wait()
    elif how == "leak":
        tell_everything()


def tell_everything() -> None:
    """Every secret of POISON_SECRETS, as a library might say it: in a log line, an exception and its cause."""
    said = os.environ["POISON_SECRETS"]
    logging.getLogger("somelibrary").warning("sent the header %s", said)
    logging.getLogger("stt_engine.poison").info("asked with %s", said)
    try:
        raise OSError(f"403 for {said}")
    except OSError as error:
        raise LookupError(f"no answer from {said}") from error


def wish_of(key: str, worker: str) -> tuple[str, int] | None:
    """What a file of this name does to a worker of this kind, and in which chunk."""
    found = re.fullmatch(rf"{worker}-(segfault|spin|eat|hang|leak)(?:@(\d+))?", PurePosixPath(key).stem)
    return None if found is None else (found[1], int(found[2] or 0))


def write_down(**line: Any) -> None:
    with open(os.environ["POISON_JOURNAL"], "a", encoding="utf-8") as journal:
        journal.write(json.dumps({"pid": os.getpid()} | line) + "\n")  # one write: lines of two workers stay apart


def poison_decoder() -> None:
    from stt_engine.decode import AudioStream

    blocks = AudioStream._blocks

    def poisoned(stream: AudioStream) -> Any:
        write_down(split=stream.name)
        wish = wish_of(stream.name, "cpu")
        for block in blocks(stream):
            yield block
            if wish is not None:
                misbehave(wish[0])

    AudioStream._blocks = poisoned  # type: ignore[method-assign]


def poison_model() -> None:
    import tasks.gpu_work as gpu_work
    from stt_engine.backends.faster_whisper import FasterWhisperBackend
    from tasks.files_in_hand import file_ids

    coming: list[str] = []
    encode, create = FasterWhisperBackend.encode, FasterWhisperBackend.__init__
    transcribe_order = gpu_work.transcribe_order

    def poisoned_order(order: Any) -> Any:
        keys = dict(zip(file_ids(order.chunks), order.keys, strict=True))
        write_down(order=list(order.keys), chunks=[[keys[c.chunk.file_id], c.chunk.index] for c in order.chunks])
        wishes = [(c.chunk.index, wish_of(keys[c.chunk.file_id], "gpu")) for c in order.chunks]
        coming[:] = [wish[0] for index, wish in wishes if wish is not None and wish[1] == index]
        return transcribe_order(order)

    def poisoned_encode(backend: Any, windows: Any, **how: Any) -> Any:
        for how in coming:
            misbehave(how)
        return encode(backend, windows, **how)

    def with_little_memory(backend: Any, whisper: Any, **options: Any) -> None:
        create(backend, SmallDevice(whisper, int(os.environ.get("POISON_WINDOWS", "1000"))), **options)
        backend.device = "cuda:0"  # whose batches are encoded whole; a CPU takes a window at a time

    gpu_work.transcribe_order = poisoned_order
    FasterWhisperBackend.encode = poisoned_encode  # type: ignore[method-assign]
    FasterWhisperBackend.__init__ = with_little_memory  # type: ignore[method-assign]


class SmallDevice:
    """CTranslate2's Whisper on a device that holds so many windows; it says what CTranslate2 says on a full GPU."""

    def __init__(self, whisper: Any, most_windows: int) -> None:
        self._whisper, self._most_windows = whisper, most_windows

    def encode(self, features: Any) -> Any:
        n_windows = features.shape[0]
        write_down(device_batch=n_windows)
        if n_windows > self._most_windows:
            raise RuntimeError("CUDA failed with error out of memory")
        return self._whisper.encode(features)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whisper, name)


if "POISON_JOURNAL" in os.environ:
    if {"cpu-worker", "split-worker"} & set(sys.orig_argv):
        poison_decoder()
    elif "gpu-worker" in sys.orig_argv:
        poison_model()
