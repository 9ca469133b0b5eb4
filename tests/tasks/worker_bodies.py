"""Functions that tests send to workers; importable by name, as a worker needs them, and free of Prefect."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stt_engine.errors import CorruptAudio, DeviceFailed, DeviceOutOfMemory, ModelNotFound
from tasks.runners.worker import loaded, next_step

HEAVY_LIBRARIES = ("torch", "ctranslate2", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True)
class Birth:
    """What a loader found around it."""

    device: str
    arguments: Any
    visible_devices: str | None
    threads: str | None
    heavy_libraries: tuple[str, ...]
    session_id: int


@dataclass(frozen=True, slots=True)
class Timed:
    """An argument that says how long its call may take, and what it is about."""

    what: str
    deadline_s: float


def remember_birth(device: str, arguments: Any) -> Birth:
    return Birth(
        device,
        arguments,
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        os.environ.get("OMP_NUM_THREADS"),
        tuple(name for name in HEAVY_LIBRARIES if name in sys.modules),
        os.getsid(0),
    )


def refuse_to_load(device: str, arguments: Any) -> None:
    raise ModelNotFound(f"no model in {arguments}")


def load_on_third_attempt(device: str, counter: Path) -> str:
    """Dies twice, as a driver might; the file counts."""
    attempt = len(counter.read_bytes()) if counter.exists() else 0
    counter.write_bytes(b"x" * (attempt + 1))
    if attempt < 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    return f"loaded at attempt {attempt + 1}"


def die_while_loading(device: str, arguments: Any) -> None:
    os._exit(3)


def lack_memory(device: str, counter: Path) -> None:
    counter.open("ab").write(b"x")
    raise DeviceOutOfMemory("the device is full")


def load_for_ever(device: str, started: Path) -> None:
    started.touch()
    threading.Event().wait()


def birth() -> Birth:
    found = loaded()
    assert isinstance(found, Birth)
    return found


def what_is_loaded() -> Any:
    return loaded()


def pid() -> int:
    return os.getpid()


def double(number: int) -> int:
    return 2 * number


def append(line: str, path: Path) -> None:
    with path.open("a") as lines:
        lines.write(line + "\n")


def block(started: Path, timed: Timed | None = None) -> None:
    """Never returns; says its process id once it runs."""
    partial = started.with_suffix(".partial")
    partial.write_text(str(os.getpid()))
    partial.rename(started)
    threading.Event().wait()


def block_natively(started: Path) -> None:
    """Never returns either, and holds the interpreter's lock, as a native call may: no thread of Python runs."""
    started.write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)


def block_until(started: Path, released: Path) -> int:
    partial = started.with_suffix(f".{os.getpid()}")
    partial.write_text(str(os.getpid()))
    partial.rename(started)
    while not released.exists():
        time.sleep(0.01)
    return os.getpid()


def crash(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)
    threading.Event().wait()


def crash_once(marker: Path) -> int:
    """SIGKILLs its worker the first time it runs, as the kernel does when memory is short."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def leave() -> None:
    sys.exit(5)


def raise_corrupt(name: str) -> None:
    try:
        raise ValueError("moov atom not found")
    except ValueError as error:
        raise CorruptAudio(f"{name}: nothing of it decodes") from error


def raise_device_failed() -> None:
    raise DeviceFailed("an illegal memory access was encountered")


class Awkward(Exception):
    """As many libraries' errors: what it is made of is not what it is pickled with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class AwkwardCorruptAudio(CorruptAudio):
    def __init__(self, message: str, handle: Any = None) -> None:
        super().__init__(message)
        self.handle = handle


def raise_awkward() -> None:
    raise Awkward(418, "teapot")


def raise_with_lock() -> None:
    raise AwkwardCorruptAudio("a.wav: holds a lock", threading.Lock())


def return_lock() -> Any:
    return threading.Lock()


def speak() -> None:
    """Log lines of ours and of a library, a warning, and a stray print."""
    print("to nobody's harm")
    ours = logging.getLogger("tasks.spoken")
    ours.debug("not asked for")
    ours.info("three %s", "windows")
    try:
        raise ValueError("inner")
    except ValueError:
        ours.exception("went wrong")
    logging.getLogger("somelibrary.part").info("library detail")
    logging.getLogger("somelibrary.part").warning("library warning")
    warnings.warn("a warning of Python's", stacklevel=1)


def grow(size_bytes: int, started: Path) -> None:
    held = bytearray(os.urandom(1) * size_bytes)
    started.write_text(str(len(held)))
    threading.Event().wait()


def sleep_in_steps(lengths_s: list[float]) -> int:
    for length_s in lengths_s:
        next_step()
        time.sleep(length_s)
    return len(lengths_s)


def hold(size_bytes: int) -> int:
    """Keeps memory after the call, as a leak does."""
    _leaked.append(bytearray(os.urandom(1) * size_bytes))
    return os.getpid()


_leaked: list[bytearray] = []
