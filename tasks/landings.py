"""Which files of which landing batch are finished, what goes into its part, and what became of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stt_engine.errors import SourceChanged
from tasks.failure import failure_of
from tasks.types import AudioFile, FileFailure, FileResult, LandedPart, LandingBatch, NightPlan


@dataclass(slots=True)
class FinishedBatch:
    batch: LandingBatch
    results: list[FileResult] = field(default_factory=list)
    """Of the files that get a row; those that failed retryably get none."""
    open_files: set[str] = field(default_factory=set)


class Landings:
    """The books of a night by landing batch; knows no workers and no store."""

    def __init__(self, plan: NightPlan) -> None:
        self._batch_of = {file.file_id: batch.batch_id for batch in plan.batches for file in batch.files}
        self._open = {
            batch.batch_id: FinishedBatch(batch, open_files={file.file_id for file in batch.files})
            for batch in plan.batches
        }
        self.left: list[FileFailure] = []
        """Retryable failures: the next run takes them up."""
        self.deferred: list[AudioFile] = []
        self.parts: list[LandedPart] = []
        self.unsettled: list[str] = []
        self.landed = 0
        self.failed = 0

    def close(self, file: AudioFile, outcome: FileResult | FileFailure) -> FinishedBatch | None:
        """Book a file's end, and give back its batch if that was its last open file and there is a row to write.

        After `give_up_waiting` nothing is booked any more: what is not in its part by then is planned again.
        """
        finished = self._open.get(self._batch_of[file.file_id])
        if finished is None:
            return None
        finished.open_files.remove(file.file_id)
        if isinstance(outcome, FileResult):
            finished.results.append(outcome)
        elif outcome.error_type == SourceChanged.__name__:
            self.deferred.append(file)
        else:
            self.left.append(outcome)
        if finished.open_files:
            return None
        del self._open[finished.batch.batch_id]
        return finished if finished.results else None

    def give_up_waiting(self) -> list[FinishedBatch]:
        """Every batch that has rows to write although files of it were never finished."""
        batches = [batch for batch in self._open.values() if batch.results]
        self._open.clear()
        return batches

    def has_landed(self, results: Sequence[FileResult], part: LandedPart) -> None:
        self.parts.append(part)
        present = {file.file_id for file in part.landed_files}
        for result in results:
            if result.file.file_id not in present:
                elsewhere = f"{result.file.key}: another run landed its batch without it; the next run takes it"
                self.left.append(FileFailure(result.file, "LandedElsewhere", elsewhere, retryable=True))
            elif result.status == "landed":
                self.landed += 1
            else:
                self.failed += 1

    def was_lost(self, batch: LandingBatch, results: Sequence[FileResult], error: BaseException) -> None:
        """The part could not be written, as far as anybody knows: its files are planned again, and only they."""
        self.unsettled.append(batch.batch_id)
        self.left.extend(failure_of(result.file, error) for result in results)

    @property
    def settled_files(self) -> int:
        """Landed, failed, deferred or left with a reason."""
        return self.landed + self.failed + len(self.deferred) + len(self.left)
