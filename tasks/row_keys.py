"""Who has rows in a set of parts, as digests, read by as many processes as there are cores where the parts are many.

A small part costs 1 to 2 ms of Python and Parquet footers whatever it holds, so 10,000 that were never compacted are
worth the start of a few processes; threads would share one interpreter.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow.compute as pc

from stt_engine.devices import usable_cores
from tasks.parts import Part, may_hold, read_columns
from tasks.runners.pool import WorkerPool
from tasks.storage import Store, open_store

DIGEST_BYTES = 16
MANY_PARTS = 2_000
"""From here on a process more is worth the second that it takes to start."""
STRETCH_PARTS = 500
_COLUMNS = ("source_uri", "source_version", "options_hash")


@dataclass(frozen=True, slots=True)
class RowKeys:
    """Of each row, in the same order, `file_key` of its file and `uri_key` of its uri; joined, `DIGEST_BYTES` each."""

    files: bytes
    uris: bytes


def file_key(file_uri: str, version: str) -> bytes:
    """For a file and its version: `AudioFile.file_id` in half the memory."""
    return hashlib.sha256(f"{file_uri}\0{version}".encode()).digest()[:DIGEST_BYTES]


def uri_key(uri: str) -> bytes:
    return hashlib.sha256(uri.encode()).digest()[:DIGEST_BYTES]


def digests(joined: bytes) -> Iterator[bytes]:
    return (joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES))


def row_keys(store: Store, parts: Sequence[Part], options_hash: str) -> Iterator[RowKeys]:
    """Of all rows under `options_hash`; in no order.

    Raises DestinationRefused naming a part that cannot be read, PartVanished, StorageUnavailable, AccessDenied.
    """
    processes = min(usable_cores(), len(parts) // (MANY_PARTS // 2))
    if processes < 2:
        yield keys_of_parts(store, parts, options_hash)
        return
    stretches = [parts[start : start + STRETCH_PARTS] for start in range(0, len(parts), STRETCH_PARTS)]
    pool = WorkerPool("cpu", ["cpu"] * processes, threads=1, log_level=logging.WARNING)

    def read(stretch: Sequence[Part]) -> RowKeys:
        return pool.call(read_stretch, (store.uri, stretch, options_hash), what=f"reading {len(stretch)} parts")

    try:
        with ThreadPoolExecutor(processes, thread_name_prefix="row-keys") as callers:
            yield from callers.map(read, stretches)
    finally:
        pool.kill()


def read_stretch(dest: str, parts: Sequence[Part], options_hash: str) -> RowKeys:
    """In a process of its own, which opens DEST for itself."""
    return keys_of_parts(open_store(dest), parts, options_hash)


def keys_of_parts(store: Store, parts: Sequence[Part], options_hash: str) -> RowKeys:
    """Reads three columns of the parts that hold rows under `options_hash`; of the others only the footer."""
    files, uris = bytearray(), bytearray()
    wanted = partial(may_hold, column="options_hash", value=options_hash)
    for table in read_columns(store, parts, _COLUMNS, wanted=wanted):
        ours = table.filter(pc.equal(table["options_hash"], options_hash))
        rows = zip(ours["source_uri"].to_pylist(), ours["source_version"].to_pylist(), strict=True)
        for uri, version in rows:
            files += file_key(uri, version)
            uris += uri_key(uri)
    return RowKeys(bytes(files), bytes(uris))
