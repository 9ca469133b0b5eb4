"""What the flow process and a worker say to each other: frames over two pipes.

A frame is one byte of kind, eight bytes of length (big endian) and a pickle. A function travels as its name,
"module:qualname", never by value: a task body that is pickled by value takes its module's globals along, and with
them loads the model anew at every call.
"""

from __future__ import annotations

import enum
import importlib
import pickle
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import cloudpickle

from stt_engine.errors import NightscribeError, UsageError, WorkerFault
from stt_engine.types import Seconds
from tasks.redaction import redacted

_HEADER = struct.Struct("!BQ")


class FrameKind(enum.IntEnum):
    """SETUP, CALL and STOP go to the worker, the others come back."""

    SETUP = 1
    CALL = 2
    STOP = 3
    READY = 4
    SETUP_FAILED = 5
    LOG = 6
    TAKEN = 7
    """A call's function is imported and about to run."""
    ANSWER = 8
    RAISED = 9
    STEP = 10
    """A part of a call is done; its deadline counts anew."""


@dataclass(frozen=True, slots=True)
class WorkerLog:
    """One log record of a worker, its message formatted there."""

    level: int
    logger: str
    message: str
    created_s: Seconds
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker is told before anything else."""

    parent_pid: int
    device: str
    """As seen from inside the worker, where only its own device is visible: cpu or cuda:0."""
    loader: str | None
    """module:function"""
    arguments: bytes
    """Pickled, so that a class that cannot be imported there is a setup error and not a broken conversation."""
    log_level: int


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def write_frame(stream: IO[bytes], kind: FrameKind, payload: bytes = b"") -> None:
    """Raises OSError (BrokenPipeError) when the other side is gone."""
    stream.write(_HEADER.pack(kind, len(payload)) + payload)  # one write, so that two threads' frames stay apart
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[FrameKind, bytes] | None:
    """None when the other side is gone, be it in the middle of a frame."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    kind, length = _HEADER.unpack(header)
    payload = stream.read(length)
    if len(payload) < length:
        return None
    return FrameKind(kind), payload


def reference(function: Callable[..., Any]) -> str:
    """The name under which a worker imports the same function; UsageError where it cannot."""
    module, name = function.__module__, function.__qualname__
    if module == "__main__" or "<" in name:
        raise UsageError(
            f"{module}:{name} cannot run in a worker, which has to import it by its name. "
            "Move it to the top level of an imported module."
        )
    return f"{module}:{name}"


def resolve(name: str) -> Callable[..., Any]:
    """The function behind "module:qualname"; of a Prefect task, its body."""
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    body = getattr(found, "fn", found)
    if not callable(body):
        raise TypeError(f"{name} is {type(body).__name__}, not a function")
    return body  # type: ignore[no-any-return]


def pack_error(error: BaseException, *, where: str) -> bytes:
    """Pickle of an exception that is sure to be read back, its traceback (with its causes) as a note.

    The type is kept where the exception survives pickling. Of our own errors at least the type and message
    survive; anything else becomes a WorkerFault that names the type and holds the message. No secret travels along.
    """
    # format_exception prints notes too, so the note is added after.
    text = redacted(f"In {where}:\n" + "".join(traceback.format_exception(error)).rstrip())
    said = redacted(str(error))
    if isinstance(error, Exception):
        clean = error if said == str(error) else _saying(said, error)
        with_note = _pickled(clean, text)
        if with_note is not None:
            return with_note
        if isinstance(error, NightscribeError):
            plain = _pickled(type(error)(said), text)
            if plain is not None:
                return plain
    fault = WorkerFault(f"{where}: {type(error).__module__}.{type(error).__qualname__}: {said}")
    fault.add_note(text)
    return pickle.dumps(fault)


def _saying(message: str, error: Exception) -> Exception:
    """The same kind of exception with another message; a RuntimeError where its constructor takes more than that."""
    try:
        made = type(error)(message)
    except Exception:  # noqa: BLE001 - whatever a foreign constructor raises
        return RuntimeError(f"{type(error).__qualname__}: {message}")
    return made if str(made) == message else RuntimeError(f"{type(error).__qualname__}: {message}")


def _pickled(error: Exception, note: str) -> bytes | None:
    error.add_note(note)
    try:
        packed = cloudpickle.dumps(error)
        again = pickle.loads(packed)
    except Exception:  # noqa: BLE001 - whatever the exception's own __init__ or __reduce__ raises: it does not travel
        return None
    return packed if type(again) is type(error) else None


def unpack_error(packed: bytes) -> Exception:
    try:
        error = pickle.loads(packed)
    except Exception as reason:  # noqa: BLE001 - e.g. a class of a module that only the worker can import
        fault = WorkerFault(f"A worker raised an error that cannot be read here: {type(reason).__name__}: {reason}")
        fault.__cause__ = reason
        return fault
    assert isinstance(error, Exception)
    return error


def pack_answer(answer: Any, *, function: str) -> bytes:
    """Raises WorkerFault when what a function returned cannot be pickled."""
    try:
        packed: bytes = cloudpickle.dumps(answer)
    except Exception as error:
        raise WorkerFault(
            f"What {function} returned ({type(answer).__name__}) cannot travel back from its worker: {error}. "
            "Return frozen dataclasses of plain values."
        ) from error
    return packed
