"""The pool of splitting processes: which upload goes where, and what becomes of those whose process has ended.

A process crashes, hangs or grows in the turn of one recording, and has others in hand. The others are taken apart again
elsewhere; chunks that were heard of before are passed over. The one whose turn it was is tried once more, alone in a
process that is used for nothing else, since a crash may have been prepared by another; then it is refused. One that
hangs or takes too much memory is refused at once.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from stt_engine.errors import BackendUnavailable, MemoryLimitExceeded, NightscribeError, PoisonousAudio, WorkerDied
from stt_engine.server.logs import about
from stt_engine.server.split_orders import ChunkSpooled, Forget, Ready, Said, SplitComplete, SplitFailed, SplitOrder
from stt_engine.server.split_seat import Cause, End, Seat, Watch
from stt_engine.types import AudioInfo, Chunk, Seconds

log = logging.getLogger(__name__)

START_ATTEMPTS = 3
_MOVES = 5
"""How often a recording is begun again because of others, before the machine is taken to be in trouble."""
_STALLED_S = 1.0
"""A process that has made no step for so long gets no more recordings while there is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitLimits:
    """What ends a process."""

    step_s: Seconds
    """The longest that one step of a recording, a read or a block of a few seconds, may take."""
    memory_bytes: int
    """Resident, all its recordings together. An idle process that holds half of it is replaced."""


class Taker(Protocol):
    """Who wants the chunks of one recording. Called from threads of the pool, one call at a time."""

    def chunk_spooled(self, chunk: Chunk, offset_bytes: int) -> None: ...

    def split_complete(self, info: AudioInfo, speech_s: Seconds) -> None: ...

    def split_failed(self, error: NightscribeError) -> None: ...


@dataclass(slots=True, eq=False)
class _Upload:
    order: SplitOrder
    taker: Taker
    n_given: int = 0
    """Chunks that the taker has."""
    n_seen: int = 0
    """Chunks of the attempt under way."""
    seat: Seat | None = None
    suspect: bool = False
    moves: int = 0


class Splitters:
    """Thread safe. `on_broken` is told when processes will not start."""

    def __init__(self, n_processes: int, limits: SplitLimits, *, on_broken: Callable[[NightscribeError], None]) -> None:
        self._limits, self._on_broken = limits, on_broken
        self._lock = threading.Lock()
        self._uploads: dict[int, _Upload] = {}
        self._waiting: deque[_Upload] = deque()
        self._suspects: deque[_Upload] = deque()
        self._closed = False
        self._all_ready = threading.Event()
        self._seats = [self._seat(f"splitter-{number}") for number in range(n_processes)]
        self._ward = self._seat("splitter-ward")
        """For suspects, one at a time, each in a fresh process."""
        self._watch = Watch(self._look)

    def start(self) -> None:
        for seat in self._seats:
            seat.start(wanted=True)
        self._ward.start(wanted=False)
        self._watch.start()

    def wait_until_ready(self) -> bool:
        """Until each process has loaded; False where the pool is closed first."""
        self._all_ready.wait()
        return not self._closed

    def submit(self, order: SplitOrder, taker: Taker) -> None:
        upload = _Upload(order, taker)
        with self._lock:
            if self._closed:
                return
            self._uploads[order.number] = upload
            self._waiting.append(upload)
            self._place()

    def forget(self, number: int) -> None:
        """Nobody waits for it any more; its taker hears nothing more."""
        with self._lock:
            upload = self._uploads.pop(number, None)
            if upload is None:
                return
            for queue in (self._waiting, self._suspects):
                if upload in queue:
                    queue.remove(upload)
            if upload.seat is not None:
                upload.seat.send(Forget(number))

    def close(self, patience_s: Seconds) -> None:
        with self._lock:
            self._closed = True
            self._uploads.clear()
            self._waiting.clear()
            self._suspects.clear()
        self._all_ready.set()
        self._watch.stop()
        for seat in (*self._seats, self._ward):
            seat.close()
        for seat in (*self._seats, self._ward):
            seat.join(patience_s)

    @property
    def resident_bytes(self) -> int:
        """Of all its processes."""
        return sum(seat.resident_bytes for seat in (*self._seats, self._ward))

    # -- who goes where; under the lock --------------------------------------------------------------------------

    def _place(self) -> None:
        while self._waiting and (usable := [seat for seat in self._seats if seat.ready]):
            self._send(self._waiting.popleft(), min(usable, key=lambda s: (s.stalled_s > _STALLED_S, len(s.numbers))))
        if self._suspects:
            self._ward.want()
            if self._ward.ready and not self._ward.numbers:
                self._send(self._suspects.popleft(), self._ward)

    def _send(self, upload: _Upload, seat: Seat) -> None:
        upload.seat, upload.n_seen = seat, 0
        seat.numbers.add(upload.order.number)
        seat.send(upload.order)

    def _left_by(self, seat: Seat, number: int) -> None:
        """The process is done with a recording."""
        seat.numbers.discard(number)
        outgrown = not seat.numbers and seat.ready and seat.resident_bytes > self._limits.memory_bytes // 2
        if seat is self._ward or outgrown:
            seat.retire()

    # -- what the seats tell -------------------------------------------------------------------------------------

    def _heard(self, seat: Seat, said: Said) -> None:
        if isinstance(said, Ready):
            with self._lock:
                self._place()
                if all(s.ready for s in self._seats):
                    self._all_ready.set()
            return
        with self._lock:
            upload = self._uploads.get(said.number)
            if not isinstance(said, ChunkSpooled):
                self._uploads.pop(said.number, None)
                self._left_by(seat, said.number)
            elif upload is not None:
                upload.n_seen += 1
        if upload is None:
            return
        if isinstance(said, SplitComplete):
            upload.taker.split_complete(said.info, said.speech_s)
        elif isinstance(said, SplitFailed):
            upload.taker.split_failed(said.error)
        elif upload.n_seen > upload.n_given:
            upload.n_given = upload.n_seen
            upload.taker.chunk_spooled(said.chunk, said.offset_bytes)

    def _ended(self, seat: Seat, end: End) -> None:
        failed: list[tuple[_Upload, NightscribeError]] = []
        with self._lock:
            left = [self._uploads[number] for number in sorted(seat.numbers) if number in self._uploads]
            seat.numbers.clear()
            for upload in left:
                upload.seat = None
                if (error := self._verdict(upload, end)) is not None:
                    del self._uploads[upload.order.number]
                    failed.append((upload, error))
            if seat is self._ward and not self._closed:
                seat.rest()
            self._place()
        if left or end.cause != "ended":
            log.warning("%s ended (%s: %s) with %d recordings", seat.name, end.cause, end.explanation, len(left))
        for upload, error in failed:
            with about(upload.order.request_id):
                log.error("%s: %s", type(error).__name__, error)
            upload.taker.split_failed(error)

    def _verdict(self, upload: _Upload, end: End) -> NightscribeError | None:
        """None where it is tried again, for which it is queued."""
        if end.cause == "ended" or upload.order.number != end.number:
            upload.moves += end.cause == "ended" or end.number == 0  # else it was another recording's fault
            if upload.moves > _MOVES:
                return WorkerDied(f"{upload.order.name}: its decoder was ended {upload.moves} times; send it again")
            (self._suspects if upload.suspect else self._waiting).append(upload)
            return None
        if end.cause == "crash" and not upload.suspect:
            upload.suspect = True
            self._suspects.append(upload)
            return None
        return self._guilty(upload.order.name, end.cause)

    def _guilty(self, name: str, cause: Cause) -> NightscribeError:
        advice = "convert it, e.g. to FLAC, and send it again"
        if cause == "memory":
            most = self._limits.memory_bytes >> 20
            return MemoryLimitExceeded(f"{name}: decoding it takes more than {most} MiB (STT_DECODE_MEMORY_BYTES)")
        if cause == "stall":
            most_s = f"{self._limits.step_s:g} s"
            return PoisonousAudio(f"{name}: its decoder stood still for {most_s} (STT_DECODE_STEP_SECONDS); {advice}")
        return PoisonousAudio(f"{name}: it crashes its decoder; {advice}")

    def _start_failed(self, failures: int, explanation: str) -> None:
        log.warning("a splitting process ended before it was ready: %s", explanation)
        if failures == START_ATTEMPTS:
            self._on_broken(
                BackendUnavailable(
                    f"{failures} decoding processes in a row ended before they were ready ({explanation}); "
                    "`nightscribe doctor` tells more"
                )
            )

    def _look(self, since_s: Seconds) -> None:
        for seat in (*self._seats, self._ward):
            if not seat.numbers:
                continue
            seat.look(since_s)
            if seat.stalled_s > self._limits.step_s:
                seat.kill("stall")
            elif seat.resident_bytes > self._limits.memory_bytes:
                seat.kill("memory")

    def _seat(self, name: str) -> Seat:
        return Seat(name, on_said=self._heard, on_end=self._ended, on_start_failed=self._start_failed)
