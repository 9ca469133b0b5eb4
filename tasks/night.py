"""The night itself: what is split, transcribed and landed when, and what becomes of what fails.

The stages overlap. While a task batch is on a GPU worker the next files are being split; a landing batch is written as
soon as its last file is finished. What is in flight is bounded whatever the size of the run. This module asks a
`Crew` for work and waits for answers; that the crew is Prefect, plain threads or a cluster is not its business.
"""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from stt_engine.errors import BackendUnavailable, DestinationRefused, NoBackendLoaded, SourceChanged, UsageError
from stt_engine.language import LanguageGuess
from tasks.failure import failure_of, row_of
from tasks.files_in_hand import FilesInHand, file_ids, landed_row
from tasks.landings import FinishedBatch, Landings
from tasks.night_terms import Crew, CrewSize, FileFinished, NightOptions, NightOutcome, Pending
from tasks.orders import LandOrder, SplitOrder, SplitOutcome, TranscribedChunks, TranscribeOrder
from tasks.second_tries import SecondTries, Try, blame, blame_splitting
from tasks.split_groups import split_groups
from tasks.spool_discards import SpoolDiscards
from tasks.tally import Tally
from tasks.task_batches import TaskBatcher
from tasks.types import AudioFile, FileFailure, FileResult, LandedPart, NightPlan, SpooledChunk

log = logging.getLogger(__name__)

TRIES_ALONE = 2
"""Files that are tried again at once; they may be waiting out a back-off, and the others go on meanwhile."""


class Night:
    """Runs one plan with one crew.

    Args:
        plan: what this run has claimed.
        on_file: called in this thread when a file is finished.
        crew_size: asked before every order, so that a worker that joins in the middle gets work; without it the
            numbers in `options` stand.
        cancelled: asked between answers; True ends the night after landing what is complete.
    """

    def __init__(
        self,
        plan: NightPlan,
        crew: Crew,
        options: NightOptions,
        *,
        on_file: Callable[[FileFinished], None] = lambda _: None,
        on_part: Callable[[LandedPart], None] = lambda _: None,
        crew_size: Callable[[], CrewSize] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._plan, self._crew, self._options = plan, crew, options
        self._on_file, self._on_part, self._cancelled = on_file, on_part, cancelled
        self._crew_size = crew_size or (lambda: CrewSize(options.gpu_workers, options.cpu_workers))
        self._answers: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._in_flight = {"split": 0, "transcribe": 0, "alone": 0, "land": 0}
        self._to_split = deque(
            split_groups(plan.files, alone_up_to=options.files_alone_up_to, most_bytes=options.group_bytes)
        )
        self._batcher = TaskBatcher(options.batches, vote=options.transcribe.language is None)
        self._second_tries = SecondTries()
        self._discards = SpoolDiscards(options.spool_uri)
        self._files = FilesInHand(self._discards)
        self._landings = Landings(plan)
        self._tally = Tally()
        self._loaded = (options.backend, "auto")
        self._stopping = self._was_cancelled = False

    def run(self) -> NightOutcome:
        """Work until every file is finished, the stop time has come, or the run is cancelled.

        Raises UsageError, BackendUnavailable or NoBackendLoaded, after landing what is finished, when a worker or DEST
        says what is true for every file, e.g. that no backend can load the model.
        """
        try:
            try:
                self._work()
            except (UsageError, BackendUnavailable, NoBackendLoaded):
                self._land_what_is_left()
                raise
            self._land_what_is_left()
        finally:
            self._discards.close()
        return self._outcome()

    def cut_short(self) -> NightOutcome:
        """After a signal has ended `run` from outside: land what is complete, as a cancelled night does."""
        self._was_cancelled = True
        self._land_what_is_left()
        return self._outcome()

    def _outcome(self) -> NightOutcome:
        landings = self._landings
        return NightOutcome(
            landed=landings.landed,
            failed_terminal=landings.failed,
            failures_left=tuple(landings.left),
            deferred=tuple(landings.deferred),
            not_started=len(self._plan.files) - landings.settled_files,
            audio_s=self._tally.audio_s,
            speech_s=self._tally.speech_s,
            languages=dict(self._tally.languages),
            timings_s=dict(self._tally.timings_s),
            parts=tuple(landings.parts),
            unsettled=tuple(landings.unsettled),
            backend=self._loaded[0],
            compute_type=self._loaded[1],
            cancelled=self._was_cancelled,
        )

    def _work(self) -> None:
        self._order_work()
        while any(self._in_flight.values()):
            try:
                self._answers.get(timeout=1.0)()
            except queue.Empty:
                pass  # a second without an answer: only look at the clock and at the cancel button again
            if self._cancelled():
                self._was_cancelled = True
                return
            self._order_work()

    # -- ordering work -------------------------------------------------------------------------------------------

    def _order_work(self) -> None:
        self._look_at_the_clock()
        while self._in_flight["alone"] < TRIES_ALONE and (again := self._second_tries.take(self._files)):
            self._send_transcribe("alone", again.chunks, alone=again.with_retries)
        while self._batch_is_due():
            self._send_transcribe("transcribe", self._batcher.take())
        while self._to_split and self._has_room() and self._in_flight["split"] < 2 * self._crew_size().cpu_workers:
            self._send_split(self._to_split.popleft())

    def _has_room(self) -> bool:
        """Whether more may be spooled: what waits is worth less than four task batches for every GPU worker."""
        return self._batcher.waiting_windows <= 4 * self._batcher.batch_windows * self._crew_size().gpu_workers

    def _batch_is_due(self) -> bool:
        """A full batch goes while a worker would have fewer than two; a smaller one only to a worker that would idle,
        and not while files are on their way: a batch of one call costs as much as a batch of ten."""
        ready, workers = self._batcher.ready_windows, self._crew_size().gpu_workers
        if not ready or self._in_flight["transcribe"] >= 2 * workers:
            return False
        if ready >= self._batcher.batch_windows:
            return True
        nothing_coming = not self._in_flight["split"] and not (self._to_split and self._has_room())
        enough = nothing_coming or ready >= self._batcher.worth_sending
        return enough and self._in_flight["transcribe"] < workers

    def _look_at_the_clock(self) -> None:
        stop_at = self._options.stop_at
        if not self._stopping and stop_at is not None and datetime.now(UTC) >= stop_at:
            self._stopping = True
            count = sum(len(group) for group in self._to_split)
            log.info("stop time reached: %d files are left for the next run", count + self._put_back())
        if self._stopping:
            self._to_split.clear()

    def _put_back(self) -> int:
        """Let go of the files of which no chunk has been sent to a GPU worker; how many they were."""
        untouched = [found.split.file for file_id, found in self._files.items() if not self._files.begun(file_id)]
        for file in untouched:
            self._batcher.drop(file.file_id)
            self._files.let_go(file)
        return len(untouched)

    def _send_split(self, files: tuple[AudioFile, ...]) -> None:
        order = SplitOrder(
            files=files,
            options=self._options.split,
            spool_uri=self._options.spool_uri,
            alone=len(files) == 1,
            deadline_s=self._options.split_deadline_s,
        )
        self._send("split", self._crew.split, order, self._was_split)

    def _send_transcribe(self, stage: str, chunks: tuple[SpooledChunk, ...], *, alone: bool = False) -> None:
        self._files.sent(chunks)
        files = {file_id: self._files[file_id] for file_id in file_ids(chunks)}
        order = TranscribeOrder(
            chunks=chunks,
            keys=tuple(file.split.file.key for file in files.values()),
            options=self._options.transcribe,
            languages={file_id: file.language for file_id, file in files.items() if file.language is not None},
            deadline_s=self._options.transcribe_deadline_s,
            alone=alone,
        )
        self._send(stage, self._crew.transcribe, order, self._transcribed)

    def _send(
        self, stage: str, call: Callable[[Any], Pending[Any]], order: Any, answered: Callable[[Any, Pending[Any]], None]
    ) -> None:
        self._in_flight[stage] += 1
        pending = call(order)

        def take() -> None:
            self._in_flight[stage] -= 1
            answered(order, pending)

        # The crew calls back in a thread of its own: only hand over there, so that the night's state has one thread.
        pending.add_done_callback(lambda _: self._answers.put(take))

    # -- answers -------------------------------------------------------------------------------------------------

    def _was_split(self, order: SplitOrder, pending: Pending[tuple[SplitOutcome, ...]]) -> None:
        try:
            outcomes = pending.result()
        except (UsageError, BackendUnavailable):
            raise  # no file's fault, and true for every file: the run is over
        except Exception as error:  # noqa: BLE001 - whatever a decoder or a worker did, it did to these files
            if len(order.files) > 1:
                log.warning("split group of %d files failed (%s): each goes alone", len(order.files), error)
                self._to_split.extendleft((file,) for file in reversed(order.files))
            else:
                file = order.files[0]
                self._fail(failure_of(file, blame_splitting(file, error), attempts=pending.attempts))
            return
        for outcome in outcomes:
            if isinstance(outcome, FileFailure):
                if outcome.retryable and outcome.error_type != SourceChanged.__name__ and not order.alone:
                    self._to_split.appendleft((outcome.file,))
                else:
                    self._fail(outcome)
                continue
            self._tally.spent(outcome.timings_s)
            self._files.take_up(outcome, failed_tries=pending.attempts - 1)
            if outcome.chunks and self._stopping:
                self._files.let_go(outcome.file)
            elif outcome.chunks:
                self._batcher.add(outcome.file.file_id, outcome.chunks)
            else:
                self._finish(outcome.file)

    def _transcribed(self, order: TranscribeOrder, pending: Pending[TranscribedChunks]) -> None:
        self._files.answered(order.chunks)
        try:
            answer = pending.result()
        except (UsageError, BackendUnavailable, NoBackendLoaded):
            raise  # as above
        except Exception as error:  # noqa: BLE001 - it becomes a second try, or the failure of a file
            self._transcribe_failed(order, error, tries=pending.attempts)
            return
        self._loaded = (answer.backend, answer.compute_type)
        self._tally.spent(answer.timings_s)
        self._batcher.measured(len(order.chunks), sum(answer.timings_s.values()))
        repeated = pending.attempts - 1
        for transcript in answer.transcripts:
            file_id = transcript.chunk.file_id
            if file_id not in self._files:
                continue  # it failed meanwhile, by another of its chunks
            file = self._files[file_id]
            file.failed_tries += repeated
            repeated = 0  # an order that was tried again by itself is of one file
            file.hear(transcript)
            if file.language is None:
                file.language = LanguageGuess(transcript.language, transcript.language_probability)
                self._batcher.language_known(file_id)
                self._second_tries.language_known(file_id)
            if file.complete:
                self._finish(file.split.file)

    def _transcribe_failed(self, order: TranscribeOrder, error: Exception, *, tries: int) -> None:
        chunks = tuple(c for c in order.chunks if c.chunk.file_id in self._files)
        files = [self._files[file_id] for file_id in file_ids(chunks)]
        if not files:
            return
        log.warning("%s failed: %s", order.name, error)
        for file in files:
            file.failed_tries += tries
        known = files[0].language is not None or self._options.transcribe.language is not None
        if not self._second_tries.add(Try(chunks, with_retries=order.alone), error, language_known=known):
            failed = files[0].split.file
            self._fail(failure_of(failed, blame(failed, chunks, error), attempts=files[0].failed_tries))

    # -- files and parts -----------------------------------------------------------------------------------------

    def _finish(self, file: AudioFile) -> None:
        self._second_tries.drop(file.file_id)
        found = self._files.let_go(file)
        assert found is not None
        row = landed_row(
            found,
            backend=self._loaded[0],
            model=self._options.model,
            options=self._options.transcribe,
        )
        assert row.transcript is not None
        self._tally.transcript(row.transcript)
        self._close(file, row)

    def _fail(self, failure: FileFailure) -> None:
        self._batcher.drop(failure.file.file_id)
        self._second_tries.drop(failure.file.file_id)
        if (found := self._files.let_go(failure.file)) is not None:
            failure = replace(failure, info=found.split.info, content_sha256=found.split.content_sha256)
        self._close(failure.file, failure if failure.retryable else row_of(failure))

    def _close(self, file: AudioFile, outcome: FileResult | FileFailure) -> None:
        if isinstance(outcome, FileResult) and self._options.labels is not None:
            outcome = replace(outcome, labels=self._options.labels.of(file.key))
        finished = self._landings.close(file, outcome)
        self._on_file(FileFinished(file, outcome))
        if finished is not None:
            self._land(finished)

    def _land(self, finished: FinishedBatch) -> None:
        order = LandOrder(finished.batch, tuple(finished.results), *self._loaded)
        self._send("land", self._crew.land, order, self._landed)

    def _landed(self, order: LandOrder, pending: Pending[LandedPart]) -> None:
        try:
            part = pending.result()
        except Exception as error:
            self._landings.was_lost(order.batch, order.results, error)
            if isinstance(error, DestinationRefused):
                raise  # whatever else is transcribed could not be landed either
            # It may be that no run record can be written either: then this is all that tells.
            log.error("%d files could not be landed and are left for the next run: %s", len(order.results), error)
            return
        self._tally.spent({"land": part.wall_s})
        self._landings.has_landed(order.results, part)
        self._on_part(part)

    def _land_what_is_left(self) -> None:
        """At the end of a night that was stopped: batches of which some files are finished and others never will be.

        A cancelled night lands complete batches only; those are on their way already.
        """
        if not self._was_cancelled:
            for finished in self._landings.give_up_waiting():
                self._land(finished)
        while self._in_flight["land"]:
            try:
                self._answers.get()()
            except (UsageError, BackendUnavailable, NoBackendLoaded) as error:
                log.warning("while landing what is finished: %s", error)  # what ended the night, said once more
