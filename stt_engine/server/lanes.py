"""A lane: one thread that owns one loaded engine, and does what the scheduler hands it."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from stt_engine.decoding import ChunkDecoder
from stt_engine.engine import WhisperSTT
from stt_engine.errors import DeviceFailed, NightscribeError, WorkerFault
from stt_engine.server.housekeeping import Housekeeping
from stt_engine.server.logs import about
from stt_engine.server.metrics import Metrics
from stt_engine.server.problems import Abandoned
from stt_engine.server.recording import BatchKey, Recording, Unit
from stt_engine.server.scheduler import Scheduler

log = logging.getLogger(__name__)

_DECODERS_KEPT = 32


class Lane(threading.Thread):
    """Runs until the scheduler is closed. The backends are touched by no other thread."""

    def __init__(
        self,
        engine: WhisperSTT,
        scheduler: Scheduler,
        metrics: Metrics,
        *,
        number: int,
        device_batch_windows: int,
        on_broken: Callable[[NightscribeError], None],
    ) -> None:
        super().__init__(name=f"lane-{number}", daemon=True)
        self._engine, self._scheduler, self._metrics = engine, scheduler, metrics
        self._max_windows = device_batch_windows
        self._on_broken = on_broken
        self._decoders: OrderedDict[BatchKey, ChunkDecoder] = OrderedDict()
        self._housekeeping = Housekeeping()

    def run(self) -> None:
        while units := self._scheduler.take(self._max_windows):
            with about(",".join(dict.fromkeys(unit.recording.request_id for unit in units))):
                self._do(units)
                self._housekeeping.after_batch(idle=self._scheduler.waiting_chunks == 0)
        self._engine.close()

    def _do(self, units: list[Unit]) -> None:
        started_s = time.perf_counter()
        try:
            done = self._together(units)
        except NightscribeError as error:
            self._apart(units, error)
            return
        except Exception as error:  # a fault in a library must not end the lane: the request fails, the others go on
            log.exception("a device batch failed")
            fault = WorkerFault(f"{type(error).__name__} in a device batch")
            fault.__cause__ = error
            self._apart(units, fault)
            return
        if done:
            seconds = sum(audio_s for _, audio_s in done)
            self._metrics.batch(sum(n for n, _ in done), seconds, time.perf_counter() - started_s)

    def _together(self, units: list[Unit]) -> list[tuple[int, float]]:
        """Per unit done its windows and their audio seconds."""
        held = []
        for unit in units:
            try:
                held.append((unit, unit.recording.read(unit.positions)))
            except Abandoned:
                continue
        if not held:
            return []
        decoder = self._decoder(held[0][0].recording.key)
        for unit, chunks in held:
            if unit.vote_only:
                unit.recording.voted(decoder.detect_language(chunks))
        spoken = [(unit, chunks) for unit, chunks in held if not unit.vote_only]
        if spoken:
            languages = {
                unit.recording.request_id: unit.recording.language for unit, _ in spoken if unit.recording.language
            }
            transcripts = iter(decoder.transcribe([chunk for _, chunks in spoken for chunk in chunks], languages))
            for unit, _ in spoken:
                unit.recording.heard(unit.positions, [next(transcripts) for _ in unit.positions])
        self._max_windows = min(self._max_windows, decoder.device_batch_windows)
        return [(len(chunks), sum(c.chunk.duration_s for c in chunks)) for _, chunks in spoken]

    def _apart(self, units: list[Unit], error: NightscribeError) -> None:
        """A batch of several recordings failed: each again alone, so that only the one at fault fails."""
        by_recording: dict[Recording, list[Unit]] = {}
        for unit in units:
            by_recording.setdefault(unit.recording, []).append(unit)
        if len(by_recording) > 1:
            for own in by_recording.values():
                self._do(own)
            return
        (recording,) = by_recording
        log.error("%s: %s", type(error).__name__, error)
        recording.fail(error)
        if isinstance(error, DeviceFailed):
            # After most CUDA errors nothing works in this process any more; a fresh one may.
            self._on_broken(error)

    def _decoder(self, key: BatchKey) -> ChunkDecoder:
        decoder = self._decoders.pop(key, None)
        if decoder is None:
            backend = self._engine.choose(key.backend)
            decoder = ChunkDecoder(backend, key.options, device_batch_windows=self._max_windows)
        self._decoders[key] = decoder
        if len(self._decoders) > _DECODERS_KEPT:
            self._decoders.popitem(last=False)
        decoder.device_batch_windows = min(decoder.device_batch_windows, self._max_windows)
        return decoder
