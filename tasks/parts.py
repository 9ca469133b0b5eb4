"""The parts of a table: their paths, and reading a few of their columns without fetching the rest."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from stt_engine.errors import DestinationRefused
from tasks.newer import refuse_newer_part
from tasks.schema import TRANSCRIPTS
from tasks.storage import NotStored, Store, Stored

SUFFIX = ".parquet"
TAIL_BYTES = 64 * 1024
"""Fetched first: it holds the footer of every usual part, and all of a small one."""
READERS = 16
"""Parts read at once; each is one or two small requests, so it is latency that is hidden."""
_ALWAYS_THERE = frozenset({"source_uri", "source_version", "options_hash", "status"})
"""In every row of ours: a null there is somebody else's, and would make a file that is done new."""


def part_path(table: str, ingest_date: date, batch_id: str) -> str:
    return f"{table}/ingest_date={ingest_date.isoformat()}/{batch_id}{SUFFIX}"


def partition_date(path: str) -> date:
    """The ingest_date of a part's folder."""
    return date.fromisoformat(PurePosixPath(path).parent.name.removeprefix("ingest_date="))


@dataclass(frozen=True, slots=True)
class Part:
    stored: Stored

    @property
    def batch_id(self) -> str:
        return batch_of_path(self.stored.path)

    def path_in(self, table: str) -> str:
        """Where the part of the same batch lies in another table."""
        return path_in(table, self.stored.path)


class PartVanished(NotStored):
    """A part that was listed is gone: list again. Caught by `tasks.live_parts`; not for users."""


def batch_of_path(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(SUFFIX)


def path_in(table: str, path: str) -> str:
    """Where the part of the same batch lies in another table."""
    return f"{table}/" + path.partition("/")[2]


def require_tables(store: Store) -> None:
    """Raises DestinationRefused where nothing has landed yet."""
    if next(store.list("_runs"), None) is None and next(store.list("transcripts"), None) is None:
        raise DestinationRefused(
            f"DEST {store.uri} holds no tables: no run has landed there yet, or it is another place"
        )


def list_parts(store: Store, table: str) -> Iterator[Part]:
    for stored in store.list(table):
        if stored.path.endswith(SUFFIX):
            yield Part(stored)


def read_columns(
    store: Store,
    parts: Sequence[Part],
    columns: Sequence[str],
    *,
    wanted: Callable[[pq.FileMetaData], bool] = lambda metadata: True,
) -> Iterator[pa.Table]:
    """`read_parts` for those who do not ask where a table comes from."""
    for _, table in read_parts(store, parts, columns, wanted=wanted):
        yield table


def read_parts(
    store: Store,
    parts: Sequence[Part],
    columns: Sequence[str],
    *,
    wanted: Callable[[pq.FileMetaData], bool] = lambda metadata: True,
) -> Iterator[tuple[Part, pa.Table]]:
    """These columns of each part that `wanted` says yes to after a look at its footer; in the order of `parts`.

    Raises PartVanished for one that is gone since the listing (compaction: its rows are elsewhere by now), and
    DestinationRefused with its name for one that is there but cannot be read, is none of ours, or of a newer version:
    going on without it would transcribe its files a second time.
    """

    def read(part: Part) -> pa.Table | None:
        try:
            return _read(store, part.stored, columns, wanted)
        except NotStored as error:
            raise PartVanished(str(error)) from error
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise DestinationRefused(
                f"{store.uri_of(part.stored.path)} is no readable part ({type(error).__name__}); restore it, "
                "or move it out of DEST to have its files transcribed again"
            ) from error

    with ThreadPoolExecutor(READERS, thread_name_prefix="ledger") as pool:
        under_way: deque[tuple[Part, Future[pa.Table | None]]] = deque()
        for part in parts:
            under_way.append((part, pool.submit(read, part)))
            if len(under_way) == READERS * 2:  # so that memory does not grow with DEST
                yield from _ended(*under_way.popleft())
        while under_way:
            yield from _ended(*under_way.popleft())


def _ended(part: Part, reading: Future[pa.Table | None]) -> Iterator[tuple[Part, pa.Table]]:
    table = reading.result()
    if table is not None:
        yield part, table


def may_hold(metadata: pq.FileMetaData, column: str, value: str) -> bool:
    """False only where the statistics of every row group rule this value out.

    Raises KeyError without the column, ValueError where it does not hold text.
    """
    if metadata.num_rows == 0:
        return False
    names = metadata.schema.names
    if column not in names:
        raise KeyError(column)
    index = names.index(column)
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(index).statistics
        if statistics is None or not statistics.has_min_max:
            return True
        if not isinstance(statistics.min, str):
            raise ValueError(f"{column} holds no text")
        if statistics.min <= value <= statistics.max:
            return True
    return False


def _read(
    store: Store, stored: Stored, columns: Sequence[str], wanted: Callable[[pq.FileMetaData], bool]
) -> pa.Table | None:
    """Fetches the tail and the wanted columns into a sparse anonymous map of the part's size, and parses that."""
    size = stored.size_bytes
    if size < 12:
        raise ValueError("shorter than an empty Parquet file")
    # Only the pages that are written to take memory. Closed by whoever drops the last reference: Arrow's buffers.
    sparse = mmap.mmap(-1, size)
    have_from = max(0, size - TAIL_BYTES)
    _fill(store, stored, sparse, have_from, size)
    footer_from = size - 8 - int.from_bytes(sparse[size - 8 : size - 4], "little")
    if sparse[size - 4 : size] != b"PAR1" or footer_from < 0:
        raise ValueError("no Parquet footer at its end")
    if footer_from < have_from:
        _fill(store, stored, sparse, footer_from, have_from)
        have_from = footer_from
    # Opened once, since that is half of the work on a small part: it looks at the footer now, at the columns when read.
    part = pq.ParquetFile(pa.BufferReader(pa.py_buffer(sparse)), page_checksum_verification=True)
    refuse_newer_part(store.uri_of(stored.path), part.metadata.metadata)
    if not wanted(part.metadata):
        return None
    for start, stop in _column_ranges(part.metadata, columns):
        _fill(store, stored, sparse, start, min(stop, have_from))
    table = part.read(columns=list(columns), use_threads=False)
    _check_types(table.schema, columns)
    for name in _ALWAYS_THERE.intersection(columns):
        if table[name].null_count:
            raise ValueError(f"rows without {name}")
    return table


def _check_types(found: pa.Schema, columns: Sequence[str]) -> None:
    """Raises KeyError for a column that is missing, ValueError for one that holds something else than ours does."""
    for name in columns:
        kind = found.field(name).type
        if name not in TRANSCRIPTS.names or pa.types.is_nested(kind):
            continue
        wanted = TRANSCRIPTS.field(name).type
        if kind != wanted and not (pa.types.is_large_string(kind) and pa.types.is_string(wanted)):
            raise ValueError(f"{name} is {kind}")


def _fill(store: Store, stored: Stored, sparse: mmap.mmap, start: int, stop: int) -> None:
    if start >= stop:
        return
    piece = store.read_range(stored.path, start, stop)
    if len(piece) != stop - start:
        raise ValueError(f"{len(piece)} bytes where {stop - start} were listed")
    sparse[start:stop] = piece


def _column_ranges(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[tuple[int, int]]:
    """The bytes of these columns, neighbours joined: (start, stop)."""
    chunks = []
    chosen = _leaves(metadata.schema, columns)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for chunk in map(group.column, chosen):
            start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            chunks.append((start, start + chunk.total_compressed_size))
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(chunks):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def _leaves(schema: pq.ParquetSchema, columns: Sequence[str]) -> list[int]:
    """Positions of these columns, all leaves of those that are nested."""
    flat = [at for at, name in enumerate(schema.names) if name in columns and schema.column(at).path == name]
    if len(flat) == len(set(columns)):  # without a look at every other path, of which there are many
        return flat
    return [at for at in range(len(schema.names)) if schema.column(at).path.partition(".")[0] in columns]
