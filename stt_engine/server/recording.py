"""One recording under way: chunks come in from the splitter, units go out to the lanes, transcripts come back.

A unit is what a lane takes at once: one chunk where the language is known; for a short recording whose language is not
known all its chunks, which vote within their own decoding; for a long one first a vote of chunks from all over it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stt_engine.assemble import assemble
from stt_engine.errors import NightscribeError
from stt_engine.language import LanguageGuess, evenly_spread
from stt_engine.server.problems import Abandoned
from stt_engine.spool import ChunkSpool
from stt_engine.types import AudioInfo, Chunk, ChunkAudio, ChunkTranscript, Seconds, TranscribeOptions, Transcript

VOTE_WITHIN_CHUNKS = 4
"""Up to so many chunks are decoded in one go, so that their vote costs no second encoding."""


@dataclass(frozen=True, slots=True)
class BatchKey:
    """What the chunks of one decoder call must share. The language is not among it: each window has its own."""

    backend: str
    options: TranscribeOptions


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    recording: Recording
    positions: tuple[int, ...]
    """Of the chunks, in the order in which they were split."""
    vote_only: bool = False


class Recording:
    """Used by one thread of the splitters, any lanes, and one reader.

    `changed` is called from any of them, without a lock.
    """

    def __init__(self, request_id: str, folder: Path, *, backend: str, options: TranscribeOptions, model: str) -> None:
        self.request_id = request_id
        self.options = options
        self.model = model
        self.key = BatchKey(backend, replace(options, language=None))
        self.language = LanguageGuess(options.language, 1.0) if options.language else None
        self.changed: Callable[[], None] = lambda: None
        self.offer: Callable[[Recording, list[Unit]], None] = lambda recording, units: None
        """Takes units that have become ready; the scheduler's."""
        self.ready: deque[Unit] = deque()
        """The scheduler's, under its lock."""
        self.error: NightscribeError | None = None
        self.spool = folder / "chunks"
        """Written by the splitter, while it is read here."""
        self._spool = ChunkSpool(self.spool, shared=True)
        self._lock = threading.Lock()
        self._heard: dict[int, ChunkTranscript] = {}
        self._info: AudioInfo | None = None
        self._speech_s: Seconds = 0.0
        self._closed = False

    # -- the splitter's side -------------------------------------------------------------------------------------

    def append(self, chunk: Chunk, offset_bytes: int) -> None:
        """A chunk whose samples are in the file `spool`. Raises Abandoned where it was closed meanwhile."""
        with self._lock:
            if self._closed:
                raise Abandoned("nobody waits for this recording any more")
            self._spool.adopt(chunk, offset_bytes)
            position = len(self._spool.chunks) - 1
        if self.language is not None:
            self.offer(self, [Unit(self, (position,))])

    def split_complete(self, info: AudioInfo, speech_s: Seconds) -> None:
        with self._lock:
            self._info, self._speech_s = info, speech_s
            everything = tuple(range(len(self._spool.chunks)))
        if self.language is None and everything:
            if len(everything) <= VOTE_WITHIN_CHUNKS:
                self.offer(self, [Unit(self, everything)])
            else:
                self.offer(self, [Unit(self, tuple(evenly_spread(everything)), vote_only=True)])
        self.changed()

    def fail(self, error: NightscribeError) -> None:
        self.error = self.error or error
        self.changed()

    # -- the lanes' side -----------------------------------------------------------------------------------------

    def read(self, positions: Sequence[int]) -> list[ChunkAudio]:
        """Raises Abandoned where it was closed meanwhile."""
        with self._lock:
            if self._closed:
                raise Abandoned("nobody waits for this recording any more")
            return [self._spool.read(position) for position in positions]

    def voted(self, guess: LanguageGuess) -> None:
        self.language = guess
        with self._lock:
            count = len(self._spool.chunks)
        self.offer(self, [Unit(self, (position,)) for position in range(count)])

    def heard(self, positions: Sequence[int], transcripts: Sequence[ChunkTranscript]) -> None:
        with self._lock:
            self._heard |= dict(zip(positions, transcripts, strict=True))
        self.changed()

    # -- the reader's side ---------------------------------------------------------------------------------------

    @property
    def abandoned(self) -> bool:
        return self._closed

    @property
    def finished(self) -> bool:
        with self._lock:
            complete = self._info is not None and len(self._heard) == len(self._spool.chunks)
        return complete or self.error is not None

    def heard_in_order(self, start: int) -> list[ChunkTranscript]:
        """The transcripts from the `start`-th chunk on, up to the first that is still missing."""
        with self._lock:
            found: list[ChunkTranscript] = []
            while (transcript := self._heard.get(start + len(found))) is not None:
                found.append(transcript)
            return found

    def transcript(self) -> Transcript:
        """Once `finished`; raises the error that ended it."""
        if self.error is not None:
            raise self.error
        assert self._info is not None, "asked for before it was finished"
        return assemble(
            list(self._heard.values()),
            info=self._info,
            speech_s=self._speech_s,
            backend=self.key.backend,
            model=self.model,
            language=self.options.language,
        )

    def close(self) -> None:
        """Whatever is still to be done for it is not done any more."""
        with self._lock:
            self._closed = True
            self._spool.close()
