"""A crew in memory for tests of the night: it answers one order at a time, in an order that the test chooses."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from stt_engine.errors import NightscribeError, RetryableError, SourceChanged, StorageUnavailable, WorkerDied
from stt_engine.types import AudioInfo, Chunk, ChunkTranscript, Segment
from tasks.failure import failure_of
from tasks.night import Night
from tasks.orders import LandOrder, SplitOrder, SplitOutcome, TranscribedChunks, TranscribeOrder
from tasks.types import AudioFile, FileResult, LandedPart, LandingBatch, NightPlan, SplitFile, SpooledChunk

RETRIES = 3


@dataclass(frozen=True)
class Recording:
    """How a file behaves."""

    name: str
    n_chunks: int = 1
    split_errors: tuple[NightscribeError, ...] = ()
    """Raised by one attempt at splitting after the other; the last one for ever if `hopeless`."""
    hopeless: bool = False
    poison: frozenset[int] = frozenset()
    """Chunks that kill every worker."""
    transcribe_errors: tuple[NightscribeError, ...] = ()
    """Raised by one attempt at transcribing after the other."""
    size_bytes: int = 1000

    @property
    def file(self) -> AudioFile:
        return AudioFile(f"/calls/{self.name}", self.name, None, self.size_bytes, datetime(2026, 1, 1, tzinfo=UTC))


def plan_of(recordings: Sequence[Recording], batch_size: int = 3) -> NightPlan:
    files = [recording.file for recording in recordings]
    batches = tuple(
        LandingBatch(f"batch{start}", date(2026, 1, 1), "0" * 16, tuple(files[start : start + batch_size]))
        for start in range(0, len(files), batch_size)
    )
    return NightPlan("1-x", "run", batches, len(files), 0, 0, 0)


@dataclass
class Order:
    """A future whose answer is worked out when the test lets it."""

    work: Callable[[], Any]
    retried: bool
    attempts: int = 0
    answer: Any = None
    error: NightscribeError | None = None
    callbacks: list[Callable[[Any], None]] = field(default_factory=list)

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self.callbacks.append(fn)

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.answer

    def finish(self) -> None:
        while True:
            self.attempts += 1
            try:
                self.answer, self.error = self.work(), None
                break
            except NightscribeError as error:
                self.error = error
                again = isinstance(error, RetryableError) and not isinstance(error, SourceChanged)
                if not (self.retried and again and self.attempts <= RETRIES):
                    break
        for callback in self.callbacks:
            callback(self)


class ScriptedCrew:
    """Also the night's queue of answers: asking it for the next one is what lets an order finish."""

    def __init__(self, recordings: Sequence[Recording], spool: Path, seed: int = 0) -> None:
        self.recordings = {recording.file.file_id: recording for recording in recordings}
        self.spool = spool
        self.chance = random.Random(seed)
        self.open: dict[str, list[Order]] = {"split": [], "transcribe": [], "land": []}
        self.splits: list[SplitOrder] = []
        self.transcribes: list[TranscribeOrder] = []
        self.landed: dict[str, FileResult] = {}
        self.land_errors: dict[str, NightscribeError] = {}
        """By batch_id."""
        self.missing: list[str] = []
        """Spooled samples that an order did not find any more."""
        self.languages: dict[str, set[str]] = {}
        self.most: Counter[str] = Counter()
        """Orders of each kind that were open at once."""
        self.fatal: NightscribeError | None = None
        """What every transcribe order raises, once set."""
        self._tried: Counter[tuple[str, str]] = Counter()
        self._answers: list[Callable[[], None]] = []

    def direct(self, night: Night) -> None:
        night._answers = self  # type: ignore[assignment]

    # The queue.

    def put(self, answer: Callable[[], None]) -> None:
        self._answers.append(answer)

    def get(self, timeout: float | None = None) -> Callable[[], None]:
        if not self._answers:
            kind, order = self.chance.choice([(kind, order) for kind, open_ in self.open.items() for order in open_])
            self.open[kind].remove(order)
            order.finish()
        return self._answers.pop(0)

    # The crew.

    def split(self, order: SplitOrder) -> Order:
        self.splits.append(order)
        return self._open("split", Order(lambda: self._split(order), retried=order.alone))

    def transcribe(self, order: TranscribeOrder) -> Order:
        assert order.chunks
        self.transcribes.append(order)
        return self._open("transcribe", Order(lambda: self._transcribe(order), retried=order.alone))

    def land(self, order: LandOrder) -> Order:
        return self._open("land", Order(lambda: self._land(order), retried=True))

    def _open(self, kind: str, order: Order) -> Order:
        self.open[kind].append(order)
        self.most[kind] = max(self.most[kind], len(self.open[kind]))
        return order

    def _split(self, order: SplitOrder) -> tuple[SplitOutcome, ...]:
        assert order.alone == (len(order.files) == 1)
        outcomes: list[SplitOutcome] = []
        for file in order.files:
            try:
                outcomes.append(self._split_file(file))
            except NightscribeError as error:
                if order.alone:
                    raise
                outcomes.append(failure_of(file, error))
        return tuple(outcomes)

    def _split_file(self, file: AudioFile) -> SplitFile:
        recording = self.recordings[file.file_id]
        tried = self._tried["split", file.file_id]
        self._tried["split", file.file_id] += 1
        errors = recording.split_errors
        if tried < len(errors):
            raise errors[tried]
        if recording.hopeless:
            raise errors[-1]
        path = self.spool / f"{file.file_id}.pcm"
        if recording.n_chunks:
            path.touch()
        info = AudioInfo(float(recording.n_chunks), 1, 16_000, "pcm_s16le", "wav")
        chunks = tuple(
            SpooledChunk(Chunk(file.file_id, None, i, i * 16_000, (i + 1) * 16_000), str(path), i * 32_000)
            for i in range(recording.n_chunks)
        )
        return SplitFile(file, info, "ab" * 32, float(recording.n_chunks), chunks, {"decode": 0.5})

    def _transcribe(self, order: TranscribeOrder) -> TranscribedChunks:
        if self.fatal is not None:
            raise self.fatal
        ids = list(dict.fromkeys(spooled.chunk.file_id for spooled in order.chunks))
        for spooled in order.chunks:
            if not Path(spooled.spool_uri).exists():
                self.missing.append(spooled.spool_uri)
                raise StorageUnavailable(f"{spooled.spool_uri} is gone")
        for file_id in ids:
            tried = self._tried["transcribe", file_id]
            if tried < len(self.recordings[file_id].transcribe_errors):
                self._tried["transcribe", file_id] += 1
                raise self.recordings[file_id].transcribe_errors[tried]
        if any(s.chunk.index in self.recordings[s.chunk.file_id].poison for s in order.chunks):
            raise WorkerDied("killed by SIGSEGV")
        transcripts = []
        for spooled in order.chunks:
            known = order.languages.get(spooled.chunk.file_id)
            # A vote of its own gives every order a language of its own.
            language = order.options.language or (known.language if known else f"vote {id(order)}")
            self.languages.setdefault(spooled.chunk.file_id, set()).add(language)
            segment = Segment(f"w{spooled.chunk.index}", 0.0, 1.0, None, -0.1, 0.0, 1.0, 0.0)
            transcripts.append(ChunkTranscript(spooled.chunk, language, 0.9, (segment,)))
        return TranscribedChunks(tuple(transcripts), "fake", "float32", 1, {"transcribe": 0.5 * len(order.chunks)})

    def _land(self, order: LandOrder) -> LandedPart:
        if (error := self.land_errors.get(order.batch.batch_id)) is not None:
            raise error
        assert order.results
        for result in order.results:
            assert result.file.key not in self.landed, "landed twice"
            self.landed[result.file.key] = result
        files = tuple(result.file for result in order.results)
        return LandedPart(order.batch.batch_id, f"/tables/{order.batch.batch_id}", files, wrote=True)
