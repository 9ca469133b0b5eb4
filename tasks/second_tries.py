"""What is tried again after a transcribe order failed: smaller and smaller, until what is to blame stands alone.

many files ──► halves of the files ──► one file, with retries and back-off
                                            │ its worker dies every time
                                            ▼
                 halves of its chunks ──► one chunk, with retries ──► the file fails, and the message says where
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stt_engine.errors import DeadlineExceeded, MemoryLimitExceeded, PoisonousAudio, WorkerDied
from tasks.files_in_hand import file_ids
from tasks.types import AudioFile, SpooledChunk


@dataclass(frozen=True, slots=True)
class Try:
    """Chunks for one order."""

    chunks: tuple[SpooledChunk, ...]
    with_retries: bool
    """Under the file's own name, with back-off; else it goes once, to be taken apart further."""


class SecondTries:
    """A queue of them, and the chunks that wait for the language of their file."""

    def __init__(self) -> None:
        self._queue: deque[Try] = deque()
        self._held: dict[str, list[Try]] = {}
        self._searched: set[str] = set()
        """Files that killed their worker although they went alone."""

    def add(self, failed: Try, error: Exception, *, language_known: bool) -> bool:
        """Plan what to try instead of `failed`; False when nothing is left to try: its one file has failed."""
        ids = file_ids(failed.chunks)
        if len(ids) > 1:
            some = set(ids[: len(ids) // 2])
            for wanted in (True, False):
                half = tuple(c for c in failed.chunks if (c.chunk.file_id in some) is wanted)
                self._queue.append(Try(half, with_retries=len(file_ids(half)) == 1))
            return True
        (file_id,) = ids
        died = isinstance(error, WorkerDied)
        if died and len(failed.chunks) > 1 and (failed.with_retries or file_id in self._searched):
            self._searched.add(file_id)
            middle = len(failed.chunks) // 2
            first, second = (Try(half, with_retries=False) for half in (failed.chunks[:middle], failed.chunks[middle:]))
            self._queue.append(first)
            if language_known:
                self._queue.append(second)
            else:  # two halves of a file must not vote apart: the second goes by what the first has found
                self._held.setdefault(file_id, []).append(second)
            return True
        if failed.with_retries:
            return False
        self._queue.append(Try(failed.chunks, with_retries=True))
        return True

    def language_known(self, file_id: str) -> None:
        self._queue.extend(self._held.pop(file_id, ()))

    def drop(self, file_id: str) -> None:
        """Forget a file that is finished or has failed."""
        self._held.pop(file_id, None)
        self._searched.discard(file_id)

    def take(self, alive: Collection[str]) -> Try | None:
        """The next one, without the chunks of files that are not `alive` any more; None when there is none."""
        while self._queue:
            found = self._queue.popleft()
            chunks = tuple(c for c in found.chunks if c.chunk.file_id in alive)
            if chunks:
                return Try(chunks, found.with_retries)
        return None


def blame_splitting(file: AudioFile, error: Exception) -> Exception:
    """The error to record for a file that could not be split, though it went alone and was retried."""
    if isinstance(error, MemoryLimitExceeded):
        return MemoryLimitExceeded(
            f"{file.key}: decoding it took more memory than a CPU worker may have ({error}); convert it, or raise "
            "cpu_worker_memory_bytes and do it again with --force"
        )
    if isinstance(error, WorkerDied) and error.crashed:
        # Not for a worker that was killed: the machine's lack of memory, or an operator, is no fault of the file.
        return PoisonousAudio(
            f"{file.key}: the decoder crashed over it ({error}); convert it, and report it with the file"
        )
    return error


def blame(file: AudioFile, chunks: Sequence[SpooledChunk], error: Exception) -> Exception:
    """The error to record for a file with which nothing is left to try."""
    if isinstance(error, DeadlineExceeded):
        # A slow or hanging device does this to every file: what may be its fault is not held against the audio.
        return DeadlineExceeded(
            f"{file.key}: the chunk at {chunks[0].chunk.start_s:.1f} s was over its deadline at every attempt "
            f"({error}); raise transcribe_deadline_s, or look at the device"
        )
    if not isinstance(error, WorkerDied):
        return error
    return PoisonousAudio(
        f"{file.key}: the chunk at {chunks[0].chunk.start_s:.1f} s ended its worker at every attempt ({error}); "
        "listen to it there, and report it with the file if it sounds harmless"
    )
