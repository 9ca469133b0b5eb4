"""A whole folder: rows in the order of the paths, as soon as everything before them is there."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from stt_engine.client.options import ClientOptions
from stt_engine.client.rows import Journal, Row, version_of
from stt_engine.client.send import Sender
from stt_engine.errors import UsageError
from stt_engine.suffixes import AUDIO_SUFFIXES

Progress = Callable[[int, int, Row, bool], None]
"""How many are done, of how many, the row, and whether it was taken over from an earlier run."""


@dataclass(frozen=True, slots=True)
class Recorded:
    path: Path
    name: str
    """Relative to the folder, with slashes."""


def recordings_in(folder: Path) -> list[Recorded]:
    """Everything with a suffix of audio below the folder, sorted; hidden files and folders are passed over.

    Raises UsageError where the folder is none.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name one that holds recordings")
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and path.suffix[1:].lower() in AUDIO_SUFFIXES and path.is_file():
            found.append(Recorded(path, name.as_posix()))
    return found


def transcribe_folder(
    folder: Path, options: ClientOptions, progress: Progress, *, fresh: bool = False
) -> Generator[Row]:
    """The rows of every recording, those of an interrupted run included.

    Raises UsageError, AccessDenied where nothing can be sent at all. Closing it ends the run in an orderly way.
    """
    recordings = recordings_in(folder)
    sender = Sender(options)
    sender.check()
    journal = Journal(folder, options, fresh=fresh)
    complete = False
    try:
        left = 0
        for row in _rows(recordings, sender, journal, options, progress):
            left += row.retryable
            yield row
        complete = left == 0
    finally:
        sender.end()
        sender.close()
        journal.close(complete=complete)


def _rows(
    recordings: list[Recorded], sender: Sender, journal: Journal, options: ClientOptions, progress: Progress
) -> Generator[Row]:
    rows: dict[int, Row] = {}
    given = 0
    waiting = iter(enumerate(recordings))
    under_way: dict[Future[Row], tuple[int, str]] = {}
    with ThreadPoolExecutor(options.parallel, thread_name_prefix="send") as pool:
        try:
            while given < len(recordings):
                # A little more than can be sent at once, so that no thread waits for this one.
                while len(under_way) < 2 * options.parallel and (following := next(waiting, None)):
                    number, recorded = following
                    version = version_of(recorded.path)
                    if (known := journal.rows.get((recorded.name, version))) is not None:
                        rows[number] = known
                        progress(given + len(rows), len(recordings), known, True)
                        continue
                    under_way[pool.submit(sender.send, recorded.path, recorded.name)] = (number, version)
                done, _ = wait(under_way, return_when=FIRST_COMPLETED) if under_way else (set(), set())
                for future in done:
                    number, version = under_way.pop(future)
                    row = future.result()
                    journal.add(row, version)
                    rows[number] = row
                    progress(given + len(rows), len(recordings), row, False)
                while given in rows:
                    yield rows.pop(given)
                    given += 1
        finally:
            sender.end()
            for future, (_, version) in under_way.items():
                if not future.cancel():  # what the server has begun is worth the wait
                    journal.add(future.result(), version)
