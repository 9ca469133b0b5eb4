"""`nightscribe client FOLDER`, and `batch_transcribe.py FOLDER`: JSON rows on stdout, the rest on stderr."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from types import FrameType

from stt_engine.client.folder import transcribe_folder
from stt_engine.client.options import ClientOptions
from stt_engine.client.rows import Row

EXIT_DONE, EXIT_LEFT = 0, 3


def send_folder(folder: Path, options: ClientOptions, *, lines: bool, fresh: bool) -> int:
    """Exit status 3 when files are left that another run may do; one that failed for good has a row that says why."""
    n_rows = n_failed = n_left = 0
    interrupted = False
    signal.signal(signal.SIGTERM, _as_interrupt)
    with closing(_printed(transcribe_folder(folder, options, _progress, fresh=fresh), lines=lines)) as rows:
        try:
            for row in rows:
                n_rows += 1
                n_left += row.retryable
                n_failed += row.error is not None and not row.retryable
        except KeyboardInterrupt:
            interrupted = True
    _say(f"{n_rows - n_failed - n_left} of {n_rows} files transcribed, {n_failed} failed for good, {n_left} left")
    if interrupted or n_left:
        _say("the same command goes on where this one ended")
        return EXIT_LEFT
    return EXIT_DONE


def _printed(rows: Generator[Row], *, lines: bool) -> Generator[Row]:
    """Passes the rows on and prints them: a JSON array with one row a line, closed however it ends."""
    separator = "[\n"
    try:
        for row in rows:
            sys.stdout.write(f"{row.as_json()}\n" if lines else f"{separator}{row.as_json()}")
            sys.stdout.flush()
            separator = ",\n"
            yield row
    finally:
        if not lines:
            sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")
        rows.close()


def _progress(done: int, total: int, row: Row, taken_over: bool) -> None:
    outcome = row.error or f"{row.duration:.1f} s {row.language or '-'}"
    _say(f"[{done}/{total}] {row.file}  {outcome}{'  (done before)' if taken_over else ''}")


def _say(line: str) -> None:
    sys.stderr.write("".join(c if c.isprintable() else "?" for c in line) + "\n")


def _as_interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
