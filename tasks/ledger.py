"""What is done already, read from the landed tables themselves: there is no second book to keep in step.

Rows that compaction dropped, as a newer one stands for the same recording, are remembered in `_superseded`: they count
here as they did before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

from tasks.live_parts import LiveParts, with_live_parts
from tasks.row_keys import RowKeys, digests, file_key, row_keys, uri_key
from tasks.storage import Store
from tasks.types import AudioFile


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
        return self._generations[uri_key(file.uri)]

    def add(self, rows: RowKeys) -> None:
        self._files.update(digests(rows.files))
        self._generations.update(digests(rows.uris))


def read_ledger(store: Store, options_hash: str) -> Ledger:
    """Reads three columns of the parts that hold rows under `options_hash`; of the others only the footer.

    Raises DestinationRefused naming a part that cannot be read, StorageUnavailable, AccessDenied.
    """

    def read(live: LiveParts) -> Ledger:
        ledger = Ledger(options_hash, live.landed_batches)
        for rows in row_keys(store, [*live.transcripts, *live.superseded], options_hash):
            ledger.add(rows)
        return ledger

    return with_live_parts(store, read)
