"""For the tests of compaction: tables to compact, a store that can be stopped at any change, and what is in there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta

from tasks.batches import batch_id
from tasks.land import land_batch
from tasks.live_parts import LiveParts, with_live_parts
from tasks.parts import list_parts, read_columns
from tasks.storage import Store, Stored
from tasks.types import AudioFile, LandingBatch
from tests.tasks.builders import NOON, OPTIONS, failed, landed, stamp


def batch_of(
    files: Sequence[AudioFile], generation: int = 0, *, day: date = date(2026, 3, 1), options_hash: str = OPTIONS
) -> LandingBatch:
    members = [(file, generation) for file in files]
    return LandingBatch(batch_id(members, options_hash), day, options_hash, tuple(files), (generation,) * len(files))


def land(
    store: Store,
    files: Sequence[AudioFile],
    generation: int = 0,
    *,
    at: datetime = NOON,
    options_hash: str = OPTIONS,
    note: str = "",
) -> LandingBatch:
    """Lands a batch whose texts say which file and generation they are of; every fifth of the files has failed."""
    batch = batch_of(files, generation, day=at.date(), options_hash=options_hash)
    results = [failed(f) if f.size_bytes % 5 == 0 else landed(f, text_of(f, generation, note)) for f in files]
    land_batch(store, batch, results, stamp(), transcribed_at=at)
    return batch


def text_of(file: AudioFile, generation: int = 0, note: str = "") -> str:
    return f"hello 안녕 {file.size_bytes} {generation}{note}"


def land_nights(store: Store, files: Sequence[AudioFile], per_night: int = 3) -> None:
    """One batch a night."""
    for night, start in enumerate(range(0, len(files), per_night)):
        land(store, files[start : start + per_night], at=NOON + timedelta(days=night))


def contents(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table as a reader who knows nothing of compaction finds it, sorted."""
    columns = {
        "transcripts": ("source_uri", "source_version", "batch_id", "text"),
        "segments": ("source_uri", "batch_id", "segment_id", "text"),
        "words": ("source_uri", "batch_id", "word_id", "word"),
    }
    return {
        table: sorted(
            row
            for part in read_columns(store, list(list_parts(store, table)), names)
            for row in zip(*(part[name].to_pylist() for name in names), strict=True)
        )
        for table, names in columns.items()
    }


def live_uris(store: Store) -> Counter[str]:
    """As our own readers count them."""

    def read(live: LiveParts) -> Counter[str]:
        found: Counter[str] = Counter()
        for part in read_columns(store, live.transcripts, ("source_uri",)):
            found.update(part["source_uri"].to_pylist())
        return found

    return with_live_parts(store, read)


def n_parts(store: Store, table: str = "transcripts") -> int:
    return len(list(list_parts(store, table)))


class Killed(BaseException):
    """Not an Exception: nothing may catch it and go on."""


class WatchedStore(Store):
    """Another store, with a call before each change of what readers see."""

    def __init__(self, inner: Store, before: Callable[[str, str], None]) -> None:
        super().__init__(inner.uri)
        self._inner, self._before = inner, before

    def create_exclusive(self, path: str, payload: bytes) -> bool:
        self._before("create", path)
        return self._inner.create_exclusive(path, payload)

    def replace(self, path: str, payload: bytes) -> None:
        self._before("replace", path)
        self._inner.replace(path, payload)

    def delete(self, path: str) -> None:
        self._before("delete", path)
        self._inner.delete(path)

    def read(self, path: str) -> bytes:
        self._before("read", path)
        return self._inner.read(path)

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        self._before("read", path)
        return self._inner.read_range(path, start, stop)

    def stat(self, path: str) -> Stored | None:
        return self._inner.stat(path)

    def list(self, prefix: str) -> Iterator[Stored]:
        for stored in self._inner.list(prefix):
            self._before("listed", stored.path)
            yield stored

    def sweep(self) -> None:
        self._inner.sweep()
