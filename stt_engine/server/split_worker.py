"""A process that takes uploads apart for the server: decode, find speech, cut, into the recording's spool file.

It may crash, hang or grow without harm to the server, which starts another (`splitters.py`). Several recordings share
it, in turns of 50 ms. Of the server it imports nothing that computes.
"""

from __future__ import annotations

import faulthandler
import logging
import mmap
import os
import pickle
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any, NoReturn

from stt_engine.child_process import (
    ORPHANED,
    claim_pipes,
    end_with_parent,
    go_before_the_parent,
    leave,
    leave_no_core_files,
)
from stt_engine.errors import NightscribeError, WorkerFault
from stt_engine.server.housekeeping import give_memory_back
from stt_engine.server.logs import about, configure_logging
from stt_engine.server.problems import Abandoned
from stt_engine.server.split_orders import (
    ChunkSpooled,
    Forget,
    Ready,
    Said,
    SplitComplete,
    SplitFailed,
    SplitOrder,
    TurnBoard,
)
from stt_engine.server.turns import SharedTurn, SteppedReader, Turns
from stt_engine.split import split_audio
from stt_engine.spool import ChunkSpool
from stt_engine.vad import SpeechDetector

log = logging.getLogger(__name__)

NAME = "split-worker"
_RECORDINGS_BETWEEN_CLEANING = 100


def main() -> NoReturn:
    """Called as `... split-worker PARENT_PID BOARD`, BOARD being the path of the file that both map."""
    parent_pid, board = int(sys.argv[-2]), Path(sys.argv[-1])
    orders, answers = claim_pipes()
    end_with_parent(parent_pid)
    # A supervisor signals every process of the service; the server alone decides when this one is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    leave_no_core_files()
    go_before_the_parent()
    faulthandler.enable()  # where a decoder crashed, on stderr
    configure_logging()
    with board.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), TurnBoard.LAYOUT.size)
    worker = _Worker(answers, TurnBoard(memory))
    SpeechDetector()  # its network is loaded now, not with the first recording
    worker.say(Ready())
    while (order := _next(orders)) is not None:
        worker.take(order)
    leave(0)


def _next(orders: IO[bytes]) -> Any:
    try:
        return pickle.load(orders)
    except (EOFError, pickle.UnpicklingError):  # the server has closed the pipe, or ended in the middle of an order
        return None


class _Worker:
    def __init__(self, answers: IO[bytes], board: TurnBoard) -> None:
        self._answers, self._board = answers, board
        self._turns = Turns(1)
        self._said = threading.Lock()
        self._forgotten: set[int] = set()
        self._under_way: set[int] = set()
        self._done = 0

    def take(self, order: SplitOrder | Forget) -> None:
        if isinstance(order, Forget):
            if order.number in self._under_way:
                self._forgotten.add(order.number)
            return
        self._under_way.add(order.number)
        threading.Thread(target=self._split, args=(order,), name=f"split-{order.number}", daemon=True).start()

    def say(self, what: Said) -> None:
        try:
            with self._said:
                pickle.dump(what, self._answers, protocol=pickle.HIGHEST_PROTOCOL)
                self._answers.flush()
        except OSError:
            os._exit(ORPHANED)

    def _split(self, order: SplitOrder) -> None:
        with about(order.request_id):
            self.say(self._outcome(order))
        self._under_way.discard(order.number)
        self._forgotten.discard(order.number)
        self._done += 1
        if self._done % _RECORDINGS_BETWEEN_CLEANING == 0:
            give_memory_back()

    def _outcome(self, order: SplitOrder) -> SplitComplete | SplitFailed:
        try:
            return self._taken_apart(order)
        except FileNotFoundError:
            return SplitFailed(order.number, Abandoned("its folder is gone: nobody waits for it any more"))
        except NightscribeError as error:
            return SplitFailed(order.number, error)
        except Exception as error:  # of a library, on a file that nobody has seen before: it is this request's alone
            log.exception("splitting failed")
            return SplitFailed(order.number, WorkerFault(f"{type(error).__name__} while splitting"))

    def _taken_apart(self, order: SplitOrder) -> SplitComplete:
        turn = SharedTurn(self._turns, self._board, order.number, lambda: order.number in self._forgotten)
        with turn, order.upload.open("rb") as file, ChunkSpool(order.spool, shared=True) as spool:
            splitter = split_audio(
                SteppedReader(file, turn),  # type: ignore[arg-type]  # the four methods that a reader needs
                file_id=order.request_id,
                name=order.name,
                options=order.options,
                on_block=turn.step,
            )
            with splitter:
                for audio in splitter:
                    offset_bytes = spool.append(audio)
                    spool.flush()
                    self.say(ChunkSpooled(order.number, audio.chunk, offset_bytes))
            return SplitComplete(order.number, splitter.info, splitter.speech_s)
