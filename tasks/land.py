"""Landing a batch: one exclusive create decides, everything else is derived from what it decided.

    transcripts/ingest_date=D/BATCH.parquet    the truth: whoever creates it has landed the batch
    segments/..., words/...                    derived from it; written again by anyone who finds them missing

A crash before the first leaves nothing; after it, parts of the other two tables are missing until `repair_derived`.
No step ever changes a part that exists.

Once compaction has merged a batch's part into another, nothing refuses its name any more. A run that lands it all the
same was taken for dead and adopted, and stood still until then: it looks after its create, and takes back what it made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa

from stt_engine.errors import AccessDenied, DestinationRefused
from tasks.compact_log import CompactionLog, merged_away
from tasks.ledger import read_ledger
from tasks.newer import refuse_newer_part
from tasks.parts import list_parts, part_path, path_in
from tasks.rows import conformed, from_parquet, segments_table, to_parquet, transcripts_table, words_table
from tasks.schema import TRANSCRIPTS
from tasks.storage import NotStored, Store
from tasks.types import FileResult, LandedPart, LandingBatch, RunStamp

log = logging.getLogger(__name__)


def land_batch(
    store: Store,
    batch: LandingBatch,
    results: Sequence[FileResult],
    stamp: RunStamp,
    *,
    transcribed_at: datetime | None = None,
) -> LandedPart:
    """Writes the rows of the files that have a result, landed or failed for good; safe to call again.

    Files of the batch without a result (retryable failures) get no row, now or later under this name: the next run
    plans them anew. Without any result nothing is written. When somebody else landed the batch, theirs stands.

    Raises StorageUnavailable when it is unknown whether the part was created: tell `mark_done` then (`unsettled`).
    DestinationRefused when DEST takes nothing any more: no other batch will fare better.
    """
    _check_members(batch, results)
    if not results:
        return LandedPart(batch.batch_id, None, (), wrote=False)
    began_s = time.perf_counter()
    try:
        part = _land(store, batch, results, stamp, transcribed_at or datetime.now(UTC))
    except AccessDenied as error:
        raise DestinationRefused(
            f"DEST {store.uri} cannot be written any more, so the run has ended: {error}. What has landed stays; give "
            "the right to write back and run again, which transcribes again what had not landed"
        ) from error
    return replace(part, wall_s=time.perf_counter() - began_s)


def _land(
    store: Store, batch: LandingBatch, results: Sequence[FileResult], stamp: RunStamp, transcribed_at: datetime
) -> LandedPart:
    path = part_path("transcripts", batch.ingest_date, batch.batch_id)
    table = transcripts_table(batch, results, stamp, transcribed_at=transcribed_at)
    wrote = store.create_exclusive(path, to_parquet(table))
    if wrote and merged_away(store, batch.batch_id):
        store.delete(path)
        return _landed_before(store, batch)
    if not wrote:
        try:
            table = _read_part(store, path)
        except NotStored:
            return _landed_before(store, batch)
    _derive(store, table, path)
    rows = set(zip(table["source_uri"].to_pylist(), table["source_version"].to_pylist(), strict=True))
    landed = tuple(file for file in batch.files if (file.uri, file.version) in rows)
    log.info("landed %s: %d of %d files%s", path, len(landed), len(batch.files), "" if wrote else ", by an earlier try")
    return LandedPart(batch.batch_id, store.uri_of(path), landed, wrote)


def _landed_before(store: Store, batch: LandingBatch) -> LandedPart:
    """What somebody else has landed of a batch whose part is merged into another by now."""
    ledger = read_ledger(store, batch.options_hash)
    landed = tuple(file for file in batch.files if ledger.has(file))
    log.info("batch %s was landed by another run and compacted since", batch.batch_id)
    return LandedPart(batch.batch_id, None, landed, wrote=False)


def repair_derived(store: Store) -> int:
    """Writes the parts of segments/ and words/ that a crash left out. Returns how many parts were derived."""
    present = {table: {part.stored.path for part in list_parts(store, table)} for table in ("segments", "words")}
    retired = {found.path for found in CompactionLog(store).read().retired}
    derived = 0
    for part in list_parts(store, "transcripts"):
        if part.path_in("segments") in present["segments"] and part.path_in("words") in present["words"]:
            continue
        if part.stored.path in retired:
            continue
        try:
            table = _read_part(store, part.stored.path)
        except NotStored:
            continue  # taken away since it was listed
        _derive(store, table, part.stored.path)
        derived += 1
    return derived


def _derive(store: Store, transcripts: pa.Table, path: str) -> None:
    """Both parts, empty ones too, so that a missing one is always one that a crash left out."""
    derived = {path_in("segments", path): segments_table, path_in("words", path): words_table}
    for place, derive in derived.items():
        store.create_exclusive(place, to_parquet(derive(transcripts)))
    if store.stat(path) is None:  # merged into another meanwhile: compaction deletes the truth first, these after it
        for place in derived:
            store.delete(place)


def _read_part(store: Store, path: str) -> pa.Table:
    payload = store.read(path)
    try:
        table = from_parquet(payload)
        refuse_newer_part(store.uri_of(path), table.schema.metadata)
        return conformed(table, TRANSCRIPTS)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DestinationRefused(
            f"{store.uri_of(path)} is no readable part; restore it, or move it out of DEST to have its files done again"
        ) from error


def _check_members(batch: LandingBatch, results: Sequence[FileResult]) -> None:
    members = {file.file_id for file in batch.files}
    ids = [result.file.file_id for result in results]
    strangers = [result.file.uri for result in results if result.file.file_id not in members]
    if strangers:
        raise ValueError(f"{strangers[0]} is no member of landing batch {batch.batch_id}")
    if len(set(ids)) < len(ids):
        raise ValueError(f"landing batch {batch.batch_id} was given two results for one file")
