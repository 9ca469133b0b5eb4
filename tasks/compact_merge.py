"""Carrying out what a compaction's record says: the output first, then the deletes. Safe to do again, and at once.

    _superseded/…/OUTPUT, segments/…/OUTPUT, words/…/OUTPUT    where they exclusively create what is there: no matter
    transcripts/…/OUTPUT                                       from here on the inputs are garbage
    delete the inputs of transcripts, then of the other tables

Everything follows from the record and from inputs that never change, so it does not matter who does which step.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stt_engine.errors import DestinationRefused
from tasks.compact_log import CompactionLog, Entry, Input, Kind, Merge, merged_away
from tasks.live_parts import SUPERSEDED
from tasks.newer import refuse_newer_part
from tasks.parts import batch_of_path, path_in
from tasks.rows import conformed, from_parquet, segments_table, words_table
from tasks.schema import SUPERSEDED_ROWS, TRANSCRIPTS, stamped
from tasks.storage import NotStored, Store

log = logging.getLogger(__name__)

DERIVED = ("segments", "words", SUPERSEDED)
"""Beside each part of the transcripts, under the same name."""
ROWS_AT_ONCE = 1_000
"""Files per row group. The flat tables repeat the uri in every row: derived whole they would not fit in memory."""


def finish(store: Store, entry: Entry) -> None:
    """Brings a record to its end, whoever began it."""
    log_of_compactions = CompactionLog(store)
    if entry.done or log_of_compactions.is_done(entry.number):
        return
    for merge in entry.record.merges:
        carry_out(store, merge, entry.record.kind)
    log_of_compactions.mark_done(entry.number)


def carry_out(store: Store, merge: Merge, kind: Kind) -> None:
    if store.stat(merge.output) is None:
        _write_output(store, merge, kind)
    for found in merge.inputs:
        delete_part(store, found.path)


def delete_part(store: Store, path: str) -> None:
    """The truth first: a part of another table whose transcripts are there is never missing by this."""
    store.delete(path)
    for table in DERIVED:
        store.delete(path_in(table, path))


def _write_output(store: Store, merge: Merge, kind: Kind) -> None:
    whole = [(found, _rows(store, found.path, TRANSCRIPTS)) for found in merge.inputs]
    kept = pa.concat_tables([_without(table, found.dropped) for found, table in whole])
    if len(merge.inputs) > 1:
        kept = kept.take(pc.sort_indices(kept, sort_keys=_ORDER))
    remembered = [
        _without(_rows(store, path_in(SUPERSEDED, found.path), SUPERSEDED_ROWS), found.dropped_superseded)
        for found in merge.inputs
    ]
    if kind == "compact":
        remembered += [_only(table, found).select(SUPERSEDED_ROWS.names) for found, table in whole if found.dropped]
    superseded = pa.concat_tables([table.cast(SUPERSEDED_ROWS) for table in remembered])
    versions = _engine_versions([table for _, table in whole])
    if superseded.num_rows:
        table = superseded.cast(stamped(SUPERSEDED_ROWS, SUPERSEDED, engine_version=""))
        store.create_exclusive(path_in(SUPERSEDED, merge.output), _parquet(table, _itself))
    truth = kept.cast(stamped(TRANSCRIPTS, "transcripts", engine_version=versions))
    store.create_exclusive(path_in("segments", merge.output), _parquet(truth, segments_table))
    store.create_exclusive(path_in("words", merge.output), _parquet(truth, words_table))
    created = store.create_exclusive(merge.output, _parquet(truth, _itself))
    if created and merged_away(store, batch_of_path(merge.output)):
        # We stood still while others finished this record, and made the output an input of the next.
        delete_part(store, merge.output)
        return
    log.info("%d parts became %s: %d rows", len(merge.inputs), merge.output, truth.num_rows)


_ORDER = [(name, "ascending") for name in ("source_uri", "source_version", "transcribed_at", "batch_id")]


def _rows(store: Store, path: str, schema: pa.Schema) -> pa.Table:
    """A part, or no rows where there is none: nothing of it was superseded, or a person moved the part away. (Or the
    output stands already, and what is made of this will not be written.)"""
    try:
        table = from_parquet(store.read(path))
        refuse_newer_part(store.uri_of(path), table.schema.metadata)
        return conformed(table, schema)
    except NotStored:
        return schema.empty_table()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DestinationRefused(
            f"{store.uri_of(path)} is no readable part ({type(error).__name__}), and is to be compacted; restore it"
        ) from error


def _without(table: pa.Table, positions: Sequence[int]) -> pa.Table:
    gone = frozenset(positions)
    plain = table.replace_schema_metadata(None)
    return plain.filter(pa.array([at not in gone for at in range(table.num_rows)], pa.bool_())) if gone else plain


def _only(table: pa.Table, found: Input) -> pa.Table:
    there = [at for at in found.dropped if at < table.num_rows]  # an input that was moved away has no rows
    return table.replace_schema_metadata(None).take(pa.array(there, pa.int64()))


def _engine_versions(tables: Sequence[pa.Table]) -> str:
    found = {(table.schema.metadata or {}).get(b"nightscribe.engine_version", b"").decode() for table in tables}
    return ", ".join(sorted(filter(None, found)))


def _itself(table: pa.Table) -> pa.Table:
    return table


def _parquet(table: pa.Table, derive: Callable[[pa.Table], pa.Table]) -> bytes:
    """The bytes of a part as `tasks.rows.to_parquet` makes them, some rows of `table` at a time."""
    sink = io.BytesIO()
    schema = derive(table.take(pa.array([], pa.int64()))).schema
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, table.num_rows)
            writer.write_table(derive(table.take(pa.array(range(start, stop), pa.int64()))))
    return sink.getvalue()
