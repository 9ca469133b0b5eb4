"""Transcripts out of the tables, a file for each recording: subtitles, text or JSON below a folder.

A recording's file is named after its address, `s3://calls/2026/kim/01.wav` → `s3/calls/2026/kim/01.wav.srt`, so that it
stays the same whatever else is exported. No address leads out of the folder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stt_engine.errors import UsageError
from stt_engine.subtitles import TranscriptWriter, writer_for
from stt_engine.types import Segment, Transcript, Word
from tasks.current_rows import Condition, current_tables
from tasks.live_parts import LiveParts, with_live_parts
from tasks.parts import require_tables
from tasks.storage import open_store

_COLUMNS = (
    "source_uri", "status", "text", "language", "language_probability", "duration_s", "speech_s", "covered_s",
    "segments", "backend", "model", "warnings",
)  # fmt: skip
_LONGEST_NAME_BYTES = 200
"""File systems end at 255; what is written before it is renamed has a longer name."""
_UNFIT = re.compile(r"[\x00-\x1f\x7f/\\]")
_MARKED = re.compile(r"~[0-9a-f]{8}$")

Report = Callable[[int], None]
"""Told how many rows were looked at since it was told before; below 0 where it all begins again."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """The figures of `nightscribe export --json`, under the same names."""

    dest: str
    to: str
    format: str
    exported: int
    """Files written, or written again."""
    without_transcript: int
    """Of the rows that were asked for, those of files that failed for good: nothing is written for them."""

    @property
    def line(self) -> str:
        left = f"; {self.without_transcript} have none, they failed" if self.without_transcript else ""
        return f"{self.exported} transcripts written to {self.to} as {self.format}{left}"


def export_transcripts(
    dest: str, to: Path, *, output_format: str, where: str | None = None, report: Report = lambda rows: None
) -> ExportSummary:
    """Writes a file for the current row of each recording, those under `where` alone. Safe to call again.

    Raises UsageError for a format or condition that cannot be used and for a folder that cannot be written,
    DestinationRefused where no tables are, StorageUnavailable, AccessDenied.
    """
    writer = writer_for(output_format)
    condition = Condition(where) if where else None
    store = open_store(dest)
    require_tables(store)
    _make(to)
    looked_at = 0

    def write(live: LiveParts) -> ExportSummary:
        nonlocal looked_at
        report(-looked_at)
        looked_at = exported = failed = 0
        for rows, table in current_tables(store, live, _COLUMNS, where=condition):
            for row in table.to_pylist():
                if row["status"] == "landed":
                    _write(to, row["source_uri"], transcript_of(row), writer)
                    exported += 1
                else:
                    failed += 1
            looked_at += rows
            report(rows)
        return ExportSummary(store.uri, str(to), writer.suffix, exported, failed)

    return with_live_parts(store, write)


def transcript_of(row: Mapping[str, Any]) -> Transcript:
    """The transcript that a landed row was made of."""
    return Transcript(
        text=row["text"],
        language=row["language"],
        language_probability=row["language_probability"],
        duration_s=row["duration_s"],
        speech_s=row["speech_s"],
        covered_s=row["covered_s"],
        segments=tuple(_segment_of(segment) for segment in row["segments"]),
        backend=row["backend"] or "",
        model=row["model"],
        warnings=tuple(row["warnings"]),
    )


def place_of(uri: str, suffix: str) -> PurePosixPath:
    """Where a recording's file lies below the folder: no two recordings in one place.

    An address that makes no path as it is (`..`, control characters, names that are too long) gets 8 hex digits of its
    sha256 into its name.
    """
    scheme, separator, rest = uri.partition("://")
    given = [scheme, *rest.split("/")] if separator else ["local", *uri.removeprefix("/").split("/")]
    names = [_fit(name) for name in given]
    if names != given or _MARKED.search(names[-1]):
        names[-1] += "~" + hashlib.sha256(uri.encode()).hexdigest()[:8]
    return PurePosixPath(*names[:-1], f"{names[-1]}.{suffix}")


def _fit(name: str) -> str:
    if name in ("", ".", ".."):
        return "_"
    whole = _UNFIT.sub("_", name)
    return whole.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore")


def _write(folder: Path, uri: str, transcript: Transcript, writer: TranscriptWriter) -> None:
    target = folder / place_of(uri, writer.suffix)
    _make(target.parent)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--to {folder}: a link leads out of it at {target.parent}; take it away, or name another")
    writer.write(transcript, target)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--to: {folder} cannot be made: {error.strerror}; name a folder that can be written"
        ) from error


def _segment_of(row: Mapping[str, Any]) -> Segment:
    fields = {name: value for name, value in row.items() if name not in ("segment_id", "flags", "words")}
    return Segment(**fields, flags=tuple(row["flags"]), words=tuple(_words_of(row["words"])))


def _words_of(rows: list[Mapping[str, Any]]) -> Iterator[Word]:
    for row in rows:
        yield Word(row["word"], row["start_s"], row["end_s"], row["probability"])
