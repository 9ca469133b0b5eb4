"""One row a file, and the journal that an interrupted run leaves for the next."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from stt_engine.client.options import ClientOptions
from stt_engine.models import cache_root
from stt_engine.types import Seconds


@dataclass(frozen=True, slots=True)
class Row:
    """What is printed. A file without a transcript has an `error`, and `retryable` where another run may do better."""

    file: str
    text: str | None = None
    language: str | None = None
    duration: Seconds | None = None
    error: str | None = None
    retryable: bool = False

    def as_json(self) -> str:
        fields: dict[str, Any] = {
            "file": self.file, "text": self.text, "language": self.language, "duration": self.duration
        }  # fmt: skip
        if self.error is not None:
            fields |= {"error": self.error, "retryable": self.retryable}
        return json.dumps(fields, ensure_ascii=False)


def version_of(path: Path) -> str:
    """Changes when the file does."""
    found = path.stat()
    return f"{found.st_size}-{found.st_mtime_ns}"


class Journal:
    """Rows of an unfinished run, kept until one finishes; readable by its owner alone, since it holds transcripts."""

    def __init__(self, folder: Path, options: ClientOptions, *, fresh: bool = False) -> None:
        asked = json.dumps([str(folder.resolve()), options.url, options.language, options.backend])
        name = hashlib.sha256(asked.encode()).hexdigest()[:24]
        self.path = cache_root() / "client" / f"{name}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.path.unlink(missing_ok=True)
        self.rows: Mapping[tuple[str, str], Row] = dict(self._read())
        self._file: TextIO = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a")

    def _read(self) -> list[tuple[tuple[str, str], Row]]:
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                entry = json.loads(line)
                found.append(((entry["row"]["file"], entry["version"]), Row(**entry["row"])))
            except (ValueError, KeyError, TypeError):
                continue  # the line that the interrupted run was writing
        return found

    def add(self, row: Row, version: str) -> None:
        """Files that another run may do better are not kept."""
        if row.retryable:
            return
        fields = {"file": row.file, "text": row.text, "language": row.language, "duration": row.duration}
        entry = {"version": version, "row": {**fields, "error": row.error}}
        # Its own line even where the interrupted run left half of one.
        self._file.write("\n" + json.dumps(entry, ensure_ascii=False))
        self._file.flush()

    def close(self, *, complete: bool) -> None:
        self._file.close()
        if complete:
            self.path.unlink(missing_ok=True)
