"""What is done already, read from the landed tables themselves: there is no second book to keep in step.

Rows that compaction dropped, as a newer one stands for the same recording, are remembered in `_superseded`: they count
here as they did before.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from functools import partial

from tasks.live_parts import LiveParts, with_live_parts
from tasks.parts import may_hold, read_columns
from tasks.storage import Store
from tasks.types import AudioFile

_COLUMNS = ("source_uri", "source_version", "options_hash")


def file_key(file_uri: str, version: str) -> bytes:
    """16 bytes for a file and its version: `AudioFile.file_id` in half the memory."""
    return hashlib.sha256(f"{file_uri}\0{version}".encode()).digest()[:16]


@dataclass(slots=True)
class Ledger:
    """What has rows under one options_hash. About 100 bytes of memory for each row."""

    options_hash: str
    landed_batches: Set[str] = frozenset()
    """Names of all parts there are or were, under any options: a batch named here has landed, with all of its files or
    with some."""
    _files: set[bytes] = field(default_factory=set)
    _generations: Counter[bytes] = field(default_factory=Counter)

    def has(self, file: AudioFile) -> bool:
        """True when a row, landed or failed for good, stands for this file in this version under these options."""
        return file_key(file.uri, file.version) in self._files

    def generation(self, file: AudioFile) -> int:
        """Rows that this uri has under these options, in any version: what a forced redo must be named apart from."""
        return self._generations[_uri_key(file.uri)]

    def add_all(self, rows: Iterable[tuple[str, str]]) -> None:
        """Of each row its uri and version."""
        files, generations = self._files, self._generations
        for uri, version in rows:
            files.add(file_key(uri, version))
            generations[_uri_key(uri)] += 1


def read_ledger(store: Store, options_hash: str) -> Ledger:
    """Reads three columns of the parts that hold rows under `options_hash`; of the others only the footer.

    Raises DestinationRefused naming a part that cannot be read, StorageUnavailable, AccessDenied.
    """

    def read(live: LiveParts) -> Ledger:
        ledger = Ledger(options_hash, live.landed_batches)
        parts = [*live.transcripts, *live.superseded]
        wanted = partial(may_hold, column="options_hash", value=options_hash)
        for table in read_columns(store, parts, _COLUMNS, wanted=wanted):
            columns = (table[name].to_pylist() for name in _COLUMNS)
            rows = zip(*columns, strict=True)
            ledger.add_all((uri, version) for uri, version, row_options in rows if row_options == options_hash)
        return ledger

    return with_live_parts(store, read)


def _uri_key(uri: str) -> bytes:
    return hashlib.sha256(uri.encode()).digest()[:16]
