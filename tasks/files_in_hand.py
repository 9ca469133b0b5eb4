"""The files between splitting and their end: what has been heard of each, and when its samples may go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from stt_engine.assemble import assemble
from stt_engine.language import LanguageGuess
from stt_engine.types import ChunkTranscript, Seconds, TranscribeOptions
from tasks.types import AudioFile, FileResult, SplitFile, SpooledChunk


@dataclass(slots=True)
class FileInHand:
    split: SplitFile
    failed_tries: int
    """Attempts that came to nothing so far, of splitting and of transcribing."""
    language: LanguageGuess | None = None
    """What its first chunks to be heard have found."""
    started: float = field(default_factory=time.monotonic)
    _heard: dict[tuple[int, int], ChunkTranscript] = field(default_factory=dict)

    @property
    def transcripts(self) -> list[ChunkTranscript]:
        return [self._heard[place] for place in sorted(self._heard)]

    @property
    def complete(self) -> bool:
        return len(self._heard) == len(self.split.chunks)

    @property
    def processing_s(self) -> Seconds:
        return time.monotonic() - self.started

    def hear(self, transcript: ChunkTranscript) -> None:
        self._heard[transcript.chunk.index, transcript.chunk.channel or 0] = transcript


def landed_row(found: FileInHand, *, backend: str, model: str, options: TranscribeOptions) -> FileResult:
    """What the transcripts table says about a file of which every chunk has been heard."""
    split = found.split
    transcript = assemble(
        found.transcripts,
        info=split.info,
        speech_s=split.speech_s,
        backend=backend,
        model=model,
        language=options.language,
        timestamps=options.timestamps,
    )
    return FileResult(
        file=split.file,
        status="landed",
        attempts=found.failed_tries + 1,
        transcript=transcript,
        info=split.info,
        content_sha256=split.content_sha256,
        warnings=transcript.warnings,
        processing_s=found.processing_s,
    )


class FilesInHand(Mapping[str, FileInHand]):
    """By file_id. A file's samples are discarded when it is let go and no order that reads them is on its way."""

    def __init__(self, discard: Callable[[Sequence[SpooledChunk]], None]) -> None:
        self._discard = discard
        self._files: dict[str, FileInHand] = {}
        self._orders: dict[str, int] = {}

    def take_up(self, split: SplitFile, *, failed_tries: int) -> None:
        self._files[split.file.file_id] = FileInHand(split, failed_tries)

    def let_go(self, file: AudioFile) -> FileInHand | None:
        """A file that is finished or has failed; None when it never was in hand."""
        found = self._files.pop(file.file_id, None)
        if found is not None and file.file_id not in self._orders:
            self._discard(found.split.chunks)
        return found

    def begun(self, file_id: str) -> bool:
        """Whether chunks of it have been sent to a worker, or heard."""
        return file_id in self._orders or bool(self._files[file_id].transcripts)

    def sent(self, chunks: Sequence[SpooledChunk]) -> None:
        for file_id in file_ids(chunks):
            self._orders[file_id] = self._orders.get(file_id, 0) + 1

    def answered(self, chunks: Sequence[SpooledChunk]) -> None:
        for spooled in {spooled.chunk.file_id: spooled for spooled in chunks}.values():
            file_id = spooled.chunk.file_id
            self._orders[file_id] -= 1
            if self._orders[file_id] == 0:
                del self._orders[file_id]
                if file_id not in self._files:
                    self._discard((spooled,))

    def __getitem__(self, file_id: str) -> FileInHand:
        return self._files[file_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def file_ids(chunks: Sequence[SpooledChunk]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(spooled.chunk.file_id for spooled in chunks))
