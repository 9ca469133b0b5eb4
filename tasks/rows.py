"""From results to tables to the bytes of a part, in memory; and from the transcripts to the tables derived of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stt_engine.types import Segment
from tasks.schema import SCHEMA_VERSION, SEGMENTS, TABLES, TRANSCRIPTS, WORDS, stamped
from tasks.types import FileResult, LandingBatch, RunStamp

Row = dict[str, Any]
"""Arrow's own notion of a row; it does not leave this file."""


def transcripts_table(
    batch: LandingBatch, results: Sequence[FileResult], stamp: RunStamp, *, transcribed_at: datetime
) -> pa.Table:
    """One row per result, sorted by source_uri. Nothing is inferred: the schema is `tasks.schema.TRANSCRIPTS`."""
    rows = [_transcript_row(result, batch, stamp, transcribed_at) for result in results]
    rows.sort(key=lambda row: (row["source_uri"], row["source_version"]))
    return pa.Table.from_pylist(rows, schema=stamped(TRANSCRIPTS, "transcripts", engine_version=stamp.engine_version))


def segments_table(transcripts: pa.Table) -> pa.Table:
    """The flat segments of a transcripts table, in its order."""
    identity, segments = _flattened(transcripts, "segments", _IDENTITY_NAMES)
    columns = [*identity, *(_struct_field(segments, field.name, SEGMENTS) for field in SEGMENTS if field.name in _OWN)]
    return pa.table(dict(zip(SEGMENTS.names, columns, strict=True)), schema=_derived("segments", transcripts))


def words_table(transcripts: pa.Table) -> pa.Table:
    """The flat words of a transcripts table, in its order, numbered from 0 in each file."""
    identity, segments = _flattened(transcripts, "segments", _IDENTITY_NAMES)
    nested = pa.table(
        dict(zip(_IDENTITY_NAMES, identity, strict=True))
        | {name: pc.struct_field(segments, name) for name in ("segment_id", "channel", "words")}
    )
    carried, words = _flattened(nested, "words", (*_IDENTITY_NAMES, "segment_id", "channel"))
    file_ids = carried[_IDENTITY_NAMES.index("file_id")].to_pylist()
    numbers: list[int] = []
    for at, file_id in enumerate(file_ids):
        numbers.append(numbers[-1] + 1 if at and file_id == file_ids[at - 1] else 0)
    own = [_struct_field(words, name, WORDS) for name in ("word", "start_s", "end_s", "probability")]
    columns = [*carried, pa.array(numbers, pa.int32()), *own]
    return pa.table(dict(zip(WORDS.names, columns, strict=True)), schema=_derived("words", transcripts))


def to_parquet(table: pa.Table) -> bytes:
    """The bytes of a part: zstd, one row group while it is of the usual size, statistics for pruning, checksums."""
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=10_000,
        write_page_checksum=True,
        write_statistics=[field.name for field in table.schema if _prunes(field)],
    )
    return sink.getvalue()


def _prunes(field: pa.Field) -> bool:
    """Statistics are parsed with every footer: those of nested columns and of what was said would rule nothing out."""
    return not pa.types.is_nested(field.type) and field.name not in ("text", "error_message")


def from_parquet(payload: bytes) -> pa.Table:
    """A whole part. Raises pyarrow.ArrowInvalid or OSError when it is none."""
    return pq.read_table(pa.BufferReader(payload), page_checksum_verification=True)


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """With today's columns: those that an older version did not write are null. Raises ValueError (ArrowInvalid is one)
    where a column cannot be null, or holds something else."""
    columns = [
        table[field.name] if field.name in table.schema.names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, names=schema.names).cast(schema).replace_schema_metadata(table.schema.metadata)


def _transcript_row(result: FileResult, batch: LandingBatch, stamp: RunStamp, transcribed_at: datetime) -> Row:
    file, info, said = result.file, result.info, result.transcript
    warnings = [*result.warnings, *(info.warnings if info else ()), *(said.warnings if said else ())]
    return {
        "source_uri": file.uri,
        "source_version": file.version,
        "options_hash": batch.options_hash,
        "file_id": file.file_id,
        "batch_id": batch.batch_id,
        "transcribed_at": transcribed_at,
        "status": result.status,
        "error_type": result.error_type,
        "error_message": result.error_message,
        "warnings": list(dict.fromkeys(warnings)),
        "attempts": result.attempts,
        "duration_s": said.duration_s if said else (info.duration_s if info else None),
        "speech_s": said.speech_s if said else None,
        "covered_s": said.covered_s if said else None,
        "channels": info.channels if info else None,
        "sample_rate_hz": info.sample_rate_hz if info else None,
        "codec": info.codec if info else None,
        "size_bytes": file.size_bytes,
        "modified_at": file.modified_at,
        "content_sha256": result.content_sha256,
        "language": said.language if said else None,
        "language_probability": said.language_probability if said else None,
        "text": said.text if said else None,
        "segments": [_segment_row(at, segment) for at, segment in enumerate(said.segments)] if said else [],
        "labels": list(result.labels.items()),
        "model": said.model if said else stamp.model,
        "backend": _known(said.backend if said else stamp.backend),
        "compute_type": _known(stamp.compute_type),
        "engine_version": stamp.engine_version,
        "schema_version": SCHEMA_VERSION,
        "run_id": stamp.run_id,
        "processing_s": result.processing_s,
    }


def _segment_row(number: int, segment: Segment) -> Row:
    return {
        "segment_id": number,
        "channel": segment.channel,
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "text": segment.text,
        "avg_logprob": segment.avg_logprob,
        "no_speech_prob": segment.no_speech_prob,
        "compression_ratio": segment.compression_ratio,
        "temperature": segment.temperature,
        "flags": list(segment.flags),
        "words": [
            {"word": word.text, "start_s": word.start_s, "end_s": word.end_s, "probability": word.probability}
            for word in segment.words
        ],
    }


_IDENTITY_NAMES = tuple(name for name in SEGMENTS.names if name in TRANSCRIPTS.names and name != "text")
_OWN = frozenset(SEGMENTS.names) - frozenset(_IDENTITY_NAMES)


def _flattened(table: pa.Table, nested: str, carried: Sequence[str]) -> tuple[list[pa.Array], pa.StructArray]:
    """The carried columns repeated once per element of the list column `nested`, and its elements."""
    lists = table[nested].combine_chunks()
    parents = pc.list_parent_indices(lists)
    return [table[name].combine_chunks().take(parents) for name in carried], pc.list_flatten(lists)


def _struct_field(structs: pa.StructArray, name: str, schema: pa.Schema) -> pa.Array:
    return pc.struct_field(structs, name).cast(schema.field(name).type)


def _derived(table: str, transcripts: pa.Table) -> pa.Schema:
    """Engine and version as the truth says them: deriving again must give the same part, whoever does it."""
    kept = {key: value for key, value in (transcripts.schema.metadata or {}).items() if key.startswith(b"nightscribe.")}
    fresh = stamped(TABLES[table], table, engine_version="")
    same = {key: kept[key] for key in (b"nightscribe.engine_version", b"nightscribe.version") if key in kept}
    return fresh.with_metadata(fresh.metadata | same)


def _known(choice: str) -> str | None:
    """Null where the part was written before any worker had said what it loaded: no model was needed for it."""
    return None if choice == "auto" else choice
