"""The service without HTTP: models that load while it already answers, places in the queue, recordings under way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stt_engine import models
from stt_engine.decode import AudioLimits
from stt_engine.decoding import check_options
from stt_engine.devices import choose_devices, usable_cores
from stt_engine.engine import WhisperSTT, check_language
from stt_engine.errors import NightscribeError
from stt_engine.server.fields import Asked
from stt_engine.server.form import Form
from stt_engine.server.lanes import Lane
from stt_engine.server.metrics import Metrics
from stt_engine.server.problems import Abandoned, Refused, RequestTooLong
from stt_engine.server.recording import Recording
from stt_engine.server.scheduler import Scheduler
from stt_engine.server.settings import ServerSettings
from stt_engine.server.split_orders import SplitOrder
from stt_engine.server.splitters import SplitLimits, Splitters
from stt_engine.split import SplitOptions
from stt_engine.types import AudioInfo, Chunk, ChunkTranscript, Seconds, Transcript

log = logging.getLogger(__name__)

SMALL_MODEL_BYTES = 256 * 2**20
"""Steps of a model this small are too short to be shared by the cores of a CPU; a copy for each core does more."""
MAX_COPIES = 4
_LANES_END_WITHIN_S = 5.0
WINDOWS_ON_CPU = 4


@dataclass(frozen=True, slots=True)
class Readiness:
    state: str
    """loading, ready, failed, draining."""
    backends: tuple[str, ...] = ()
    not_loaded: tuple[tuple[str, str], ...] = ()
    device: str | None = None
    compute_type: str | None = None
    copies: int = 0


class Service:
    """Made before the event loop; `start` begins to load, `stop` ends the lanes.

    `on_failure` is told, from any thread, that the process is of no use any more: nothing loads, or the device broke.
    """

    def __init__(self, settings: ServerSettings, *, on_failure: Callable[[NightscribeError], None]) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.readiness = Readiness("loading")
        self._on_failure = on_failure
        self._scheduler = Scheduler(wait_s=settings.batch_wait_ms / 1000)
        self._splitters = Splitters(
            settings.decoding_processes,
            SplitLimits(step_s=settings.decode_step_seconds, memory_bytes=settings.decode_memory_bytes),
            on_broken=on_failure,
        )
        self._numbers = itertools.count(1)
        self._engine: WhisperSTT | None = None
        self._under_way: set[Recording] = set()
        self._in_flight = 0
        self._draining = False
        self._threads: list[threading.Thread] = []
        self.metrics.watch(
            in_flight=lambda: float(self._in_flight),
            queue_chunks=lambda: float(self._scheduler.waiting_chunks),
            splitters_bytes=lambda: float(self._splitters.resident_bytes),
        )

    # -- from start to stop --------------------------------------------------------------------------------------

    def start(self) -> None:
        self._splitters.start()
        self._threads = [threading.Thread(target=self._load, name="load", daemon=True)]
        self._threads[0].start()

    def drain(self) -> None:
        """No new requests; those under way go on. Safe in a signal handler."""
        self._draining = True

    def stop(self) -> None:
        for recording in tuple(self._under_way):
            recording.fail(Abandoned("the server ends"))
        self._scheduler.close()
        until_s = time.monotonic() + _LANES_END_WITHIN_S
        self._splitters.close(_LANES_END_WITHIN_S)
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    @property
    def ended(self) -> bool:
        """False where a thread is still inside a library, out of which it cannot be called."""
        return not any(thread.is_alive() for thread in self._threads)

    def _load(self) -> None:
        started_s = time.perf_counter()
        try:
            engines = self._load_engines()
        except NightscribeError as error:
            self.readiness = Readiness("failed", not_loaded=((self.settings.backends, str(error)),))
            self._on_failure(error)
            return
        first = engines[0]
        backend = first.backend
        windows = self.settings.device_batch_windows or (
            WINDOWS_ON_CPU if backend.device == "cpu" else backend.usual_batch
        )
        for number, engine in enumerate(engines):
            lane = Lane(
                engine,
                self._scheduler,
                self.metrics,
                number=number,
                device_batch_windows=windows,
                on_broken=self._on_failure,
            )
            lane.start()
            self._threads.append(lane)
        if not self._splitters.wait_until_ready():
            return
        self._engine = first
        self.readiness = Readiness(
            "ready",
            backends=first.backends,
            not_loaded=tuple((missing.name, missing.reason) for missing in first.not_loaded),
            device=backend.device,
            compute_type=backend.compute_type,
            copies=len(engines),
        )
        log.info(
            "ready after %.1f s: model=%s backends=%s device=%s compute_type=%s copies=%d windows=%d",
            time.perf_counter() - started_s, self.settings.model_id, ",".join(first.backends), backend.device,
            backend.compute_type, len(engines), windows,
        )  # fmt: skip

    def _load_engines(self) -> list[WhisperSTT]:
        copies = self.settings.model_copies or self._fitting_copies()
        threads = max(1, usable_cores() // copies)
        return [
            WhisperSTT(
                self.settings.model,
                self.settings.device,
                self.settings.compute_type,
                backends=self.settings.backend_names,
                cpu_threads=threads,
            )
            for _ in range(copies)
        ]

    def _fitting_copies(self) -> int:
        if choose_devices(self.settings.device)[0] != "cpu":
            return 1
        path = models.resolve(self.settings.model)
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        small = max((file.stat().st_size for file in files), default=0) < SMALL_MODEL_BYTES
        return min(usable_cores(), MAX_COPIES) if small else 1

    @property
    def takes_requests(self) -> bool:
        return self._engine is not None and not self._draining

    # -- one request ---------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raises Refused with 503 while no request can be taken."""
        if self._draining:
            raise Refused(503, "shutting_down", "the server ends; send it again to its successor", retry_after_s=5)
        if self._engine is None:
            raise Refused(503, "loading", f"the model is {self.readiness.state}; see /ready", retry_after_s=5)

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """A place in the queue and a folder for what comes in, both given back at the end."""
        self.check_open()
        if self._in_flight >= self.settings.max_queue:
            raise Refused(
                429, "queue_full", f"{self._in_flight} requests are under way already; send it later", retry_after_s=2
            )
        self._in_flight += 1
        try:
            with tempfile.TemporaryDirectory(prefix="nightscribe-serve-", ignore_cleanup_errors=True) as folder:
                yield Path(folder)
        finally:
            self._in_flight -= 1

    @contextlib.asynccontextmanager
    async def under_way(
        self, form: Form, asked: Asked, request_id: str, folder: Path, *, until_s: Seconds
    ) -> AsyncIterator[Hearing]:
        """The recording, being split and transcribed until the block is left, or until `until_s` of the loop's clock,
        when its work is dropped and whoever waits for it gets RequestTooLong.

        Raises UnknownBackend, UnknownLanguage, UnsupportedOption before anything is done.
        """
        assert self._engine is not None, "check_open comes first"
        backend = self._engine.choose(asked.backend)
        options = asked.options(check_language(backend, asked.language))
        check_options(backend, options)
        recording = Recording(request_id, folder, backend=backend.name, options=options, model=self.settings.model_id)
        hearing = Hearing(recording)
        self._under_way.add(recording)
        self._scheduler.begin(recording)
        order = self._order(recording, form)
        self._splitters.submit(order, _Taking(recording, self._scheduler))

        def drop() -> None:
            recording.close()
            self._splitters.forget(order.number)
            self._scheduler.forget(recording)

        def expire() -> None:
            recording.fail(self.too_long("heard"))
            drop()

        timer = asyncio.get_running_loop().call_at(until_s, expire)
        try:
            yield hearing
        finally:
            timer.cancel()
            drop()
            self._under_way.discard(recording)

    def too_long(self, done: str) -> RequestTooLong:
        most_s = f"{self.settings.request_seconds:g} s"
        return RequestTooLong(
            f"not {done} within {most_s} (STT_REQUEST_SECONDS); send it in parts, or when less is asked"
        )

    def _order(self, recording: Recording, form: Form) -> SplitOrder:
        limits = AudioLimits(max_bytes=self.settings.max_upload_bytes, max_duration_s=self.settings.max_audio_seconds)
        return SplitOrder(
            number=next(self._numbers),
            request_id=recording.request_id,
            name=form.file_name,
            upload=form.recording,
            spool=recording.spool,
            options=SplitOptions(limits=limits),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Taking:
    """What the splitters find goes into the recording, and its units to the scheduler."""

    recording: Recording
    scheduler: Scheduler

    def chunk_spooled(self, chunk: Chunk, offset_bytes: int) -> None:
        with contextlib.suppress(Abandoned):  # closed a moment ago: the splitters are about to hear of it
            self.recording.append(chunk, offset_bytes)

    def split_complete(self, info: AudioInfo, speech_s: Seconds) -> None:
        self.recording.split_complete(info, speech_s)
        self.scheduler.split_ended(self.recording)

    def split_failed(self, error: NightscribeError) -> None:
        self.recording.fail(error)
        self.scheduler.split_ended(self.recording)


class Hearing:
    """A recording as the event loop waits for it."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._loop = asyncio.get_running_loop()
        self._change = asyncio.Event()
        self._n_given = 0
        recording.changed = self._changed

    def _changed(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(self._change.set)

    async def transcript(self) -> Transcript:
        """The whole. Raises the engine's errors."""
        while not self._recording.finished:
            await self._change.wait()
            self._change.clear()
        return self._recording.transcript()

    async def more(self) -> list[ChunkTranscript]:
        """What has been heard since the last call, in the order of the recording; nothing when all was given."""
        while True:
            found = self._recording.heard_in_order(self._n_given)
            if found or self._recording.finished:
                self._n_given += len(found)
                return found
            await self._change.wait()
            self._change.clear()
