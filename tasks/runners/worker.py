"""What runs inside a worker process: load once, then answer calls until told to stop or the flow is gone.

Started by `tasks.runners.worker_process` as a new interpreter (never a fork: CUDA does not survive one) in a session
of its own, so that Ctrl-C at a terminal reaches only the flow, which then decides what becomes of its workers.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import queue
import signal
import threading
import time
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from stt_engine.child_process import (
    ORPHANED,
    claim_pipes,
    end_with_parent,
    go_before_the_parent,
    leave,
    leave_no_core_files,
)
from stt_engine.errors import WorkerFault
from tasks.one_line import escape_arguments
from tasks.redaction import redacted
from tasks.runners.wire import (
    Call,
    FrameKind,
    Greeting,
    WorkerLog,
    pack_answer,
    pack_error,
    read_frame,
    resolve,
    write_frame,
)

OUR_LOGGERS = ("stt_engine", "tasks", "flows")
"""Forwarded from the level asked for; other libraries from WARNING."""


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What every worker of a pool loads, once, before its first call."""

    loader: str
    """"module:function", called as `function(device, arguments)`; device is cpu or cuda:0 (see `device_inside`).
    What it returns is what `loaded()` gives to the bodies that run in this worker."""
    arguments: Any = None
    """Anything that pickles; a frozen dataclass, as a rule."""


_NOTHING = object()
_loaded: Any = _NOTHING


def loaded() -> Any:
    """What this worker's loader returned; the model, as a rule. Raises WorkerFault outside a worker."""
    if _loaded is _NOTHING:
        raise WorkerFault(
            "No model is loaded in this process. A body marked @on_gpu_worker has to be submitted "
            "(task.submit or .map) under a task runner with a gpu_setup."
        )
    return _loaded


def load_here(setup: WorkerSetup, device: str) -> Any:
    """Calls the loader in this process and keeps what it returns for `loaded()`; a Dask plugin does the same."""
    global _loaded
    _loaded = resolve(setup.loader)(device, setup.arguments)
    return _loaded


_flow: _Outgoing | None = None


def next_step() -> None:
    """Said by a body between its parts: its deadline is each one's own. Does nothing outside a worker."""
    if _flow is not None:
        _flow.send(FrameKind.STEP, b"")


def main() -> NoReturn:
    """The worker process, from its first frame to its exit."""
    requests, answers = claim_pipes()
    first = read_frame(requests)
    if first is None:
        os._exit(ORPHANED)
    greeting: Greeting = pickle.loads(first[1])
    end_with_parent(greeting.parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_no_core_files()
    go_before_the_parent()
    faulthandler.enable()  # a crash in a decoder or a driver prints where, on stderr

    global _flow
    _flow = outgoing = _Outgoing(answers)
    _forward_logs(outgoing, greeting.log_level)
    inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, inbox), name="requests", daemon=True).start()

    where = f"worker process {os.getpid()}"
    started_s = time.perf_counter()
    try:
        if greeting.loader is not None:
            load_here(WorkerSetup(greeting.loader, pickle.loads(greeting.arguments)), greeting.device)
    except BaseException as error:  # noqa: BLE001 - whatever stopped the loading is the caller's to know
        outgoing.send(FrameKind.SETUP_FAILED, pack_error(error, where=where))
        leave(1)
    outgoing.send(FrameKind.READY, pickle.dumps((os.getpid(), time.perf_counter() - started_s)))

    while (request := inbox.get()) is not None:
        outgoing.send(*_answer(request, where, outgoing))
    leave(0)


def _answer(request: bytes, where: str, outgoing: _Outgoing) -> tuple[FrameKind, bytes]:
    try:
        call: Call = pickle.loads(request)
        body = resolve(call.function)
        outgoing.send(FrameKind.TAKEN, b"")
        return FrameKind.ANSWER, pack_answer(body(*call.args, **call.kwargs), function=call.function)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt too: a body does not end its worker
        return FrameKind.RAISED, pack_error(error, where=where)


def _receive(requests: IO[bytes], inbox: queue.SimpleQueue[bytes | None]) -> None:
    """Runs beside the calls, so that the end of the pipe, which is the end of the flow, is noticed during one."""
    while True:
        frame = read_frame(requests)
        if frame is None:
            os._exit(ORPHANED)
        kind, payload = frame
        if kind is FrameKind.STOP:
            inbox.put(None)
            return
        inbox.put(payload)


class _Outgoing:
    """The pipe to the flow, written by whichever thread has something to say."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, kind: FrameKind, payload: bytes) -> None:
        try:
            with self._lock:
                write_frame(self._stream, kind, payload)
        except OSError:
            os._exit(ORPHANED)


class ForwardingHandler(logging.Handler):
    """Named and formatted as somebody's own handler: importing Prefect puts a console in the place of any other."""

    def __init__(self, outgoing: _Outgoing) -> None:
        super().__init__()
        self._outgoing = outgoing
        self.setFormatter(logging.Formatter("%(message)s"))  # appends the traceback where there is one

    def emit(self, record: logging.LogRecord) -> None:
        try:
            escape_arguments(record)
            log = WorkerLog(record.levelno, record.name, redacted(self.format(record)), record.created)
            self._outgoing.send(FrameKind.LOG, pickle.dumps(log))
        except Exception:  # noqa: BLE001 - as every handler of the standard library: a bad log call must not end a transcription
            self.handleError(record)


def _forward_logs(outgoing: _Outgoing, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [ForwardingHandler(outgoing)]
    root.setLevel(max(level, logging.WARNING))
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
