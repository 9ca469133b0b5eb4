"""The tables, column by column. What a reader of the Parquet can rely on; every part carries it in its metadata.

Seconds are doubles (DuckDB reads Arrow durations as BIGINT), times of day UTC microseconds. The schema is explicit for
every part: one inferred from a first file that holds only nulls breaks every reader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import pyarrow as pa

SCHEMA_VERSION = 1
"""Raised whenever a column changes its meaning or goes; a new nullable column does not raise it."""

MOMENT = pa.timestamp("us", tz="UTC")
_DIGEST = "hex digits of sha256"
_FAILED = "when failed"
_SILENT = "when failed, or no speech was found"
_UNOPENED = "when failed before it was opened"


def _field(
    name: str,
    kind: pa.DataType,
    description: str,
    unit: str = "",
    *,
    null: str = "never",
    since: str = "0.1.0",
    nullable: bool = True,
) -> pa.Field:
    """`null`: when the column holds none, as landing keeps it. `since`: the version of Nightscribe that brought it.

    `nullable` is what Parquet enforces: false only where it was so from the first part on, since readers refuse to put
    parts together that differ in it.
    """
    metadata = {"description": description} | ({"unit": unit} if unit else {}) | {"null": null, "since": since}
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


WORD = pa.struct(
    [
        _field("word", pa.string(), "with its leading space where the language writes one"),
        _field("start_s", pa.float64(), "from the start of the file", "s"),
        _field("end_s", pa.float64(), "from the start of the file", "s"),
        _field("probability", pa.float64(), "mean probability of the word's tokens", "0..1"),
    ]
)

_SEGMENT_FIELDS = [
    _field("segment_id", pa.int32(), "position in the file, from 0"),
    _field("channel", pa.int32(), "channel from 0", null="when the channels were mixed down"),
    _field("start_s", pa.float64(), "from the start of the file", "s"),
    _field("end_s", pa.float64(), "from the start of the file", "s"),
    _field("text", pa.string(), "what was said"),
    _field("avg_logprob", pa.float64(), "mean log probability of the window's tokens", "nat"),
    _field("no_speech_prob", pa.float64(), "probability that the window holds no speech", "0..1"),
    _field("compression_ratio", pa.float64(), "utf-8 bytes over zlib bytes; above 2.4 the text repeats itself"),
    _field("temperature", pa.float64(), "of the decode that was kept; above 0 after a fallback"),
    _field("flags", pa.list_(pa.string()), "doubts: repetition, invented_phrase, low_confidence, timing"),
]

SEGMENT = pa.struct([*_SEGMENT_FIELDS, _field("words", pa.list_(WORD), "empty unless word times were asked for")])

_IDENTITY = [
    _field("source_uri", pa.string(), "of the audio, unencoded", nullable=False),
    _field("source_version", pa.string(), "etag, else size and time of modification", nullable=False),
    # Beside the two above, so that the ledger is read with one request per part.
    _field("options_hash", pa.string(), f"{_DIGEST} of the model's weights and the options that change text"),
    _field("file_id", pa.string(), f"32 {_DIGEST} of source_uri NUL source_version; joins the tables"),
    _field("batch_id", pa.string(), "name of the part that the row was landed in; compaction does not change it"),
    _field("transcribed_at", MOMENT, "when the row was landed", "UTC"),
]

TRANSCRIPTS = pa.schema(
    [
        *_IDENTITY,
        _field("status", pa.string(), "landed, or failed for good (see error_type)", nullable=False),
        _field("error_type", pa.string(), "name of the error; each has a page in docs/failures", null="when landed"),
        _field("error_message", pa.string(), "what happened and what to do", null="when landed"),
        _field("warnings", pa.list_(pa.string()), "what a reader of the text should know"),
        _field("attempts", pa.int32(), "how often the file was taken up in this run"),
        _field("duration_s", pa.float64(), "as decoded, not as declared", "s", null=_UNOPENED),
        _field("speech_s", pa.float64(), "found by voice activity; summed over channels when apart", "s", null=_FAILED),
        _field(
            "covered_s", pa.float64(), "speech under words, or under segments without word times", "s", null=_FAILED
        ),
        _field("channels", pa.int32(), "in the file, before mixing down", null=_UNOPENED),
        _field("sample_rate_hz", pa.int32(), "in the file, before resampling", "Hz", null=_UNOPENED),
        _field("codec", pa.string(), "as the container names it", null=_UNOPENED),
        _field("size_bytes", pa.int64(), "of the file", "bytes"),
        _field("modified_at", MOMENT, "of the file, by its store", "UTC"),
        _field(
            "content_sha256", pa.string(), f"64 {_DIGEST} of the file's bytes", null="when failed before it was read"
        ),
        _field("language", pa.string(), "Whisper code, such as en or ko", null=_SILENT),
        _field("language_probability", pa.float64(), "of the vote over the file's speech", "0..1", null=_SILENT),
        _field("text", pa.string(), "the whole transcript; empty for silence", null=_FAILED),
        _field("segments", pa.list_(SEGMENT), "the transcript with its times"),
        _field("labels", pa.map_(pa.string(), pa.string()), "named groups of --key-pattern"),
        _field("model", pa.string(), "name or directory"),
        _field("backend", pa.string(), "e.g. faster-whisper", null="where no model was needed"),
        _field("compute_type", pa.string(), "e.g. float16, int8", null="where no model was needed"),
        _field("engine_version", pa.string(), "of the package that transcribed"),
        _field("schema_version", pa.int32(), "of this row"),
        _field("run_id", pa.string(), "of the run that landed the row"),
        _field("processing_s", pa.float64(), "seconds of work spent on the file", "s"),
    ]
)

SEGMENTS = pa.schema([*_IDENTITY, *_SEGMENT_FIELDS])

WORDS = pa.schema(
    [
        *_IDENTITY,
        _field("segment_id", pa.int32(), "of the segment that it belongs to"),
        _field("channel", pa.int32(), "channel from 0", null="when the channels were mixed down"),
        _field("word_id", pa.int32(), "position in the file, from 0"),
        *[WORD.field(index) for index in range(WORD.num_fields)],
    ]
)

SUPERSEDED_ROWS = pa.schema(_IDENTITY)
"""What compaction remembers of rows that it dropped; kept apart from the tables, and read by the ledger alone."""

TABLES: Mapping[str, pa.Schema] = {"transcripts": TRANSCRIPTS, "segments": SEGMENTS, "words": WORDS}
"""Folder below DEST -> schema of its parts."""


def package_version() -> str:
    try:
        return version("nightscribe")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"


def stamped(schema: pa.Schema, table: str, *, engine_version: str) -> pa.Schema:
    """The schema as parts have it: with what a part says about itself in the file's metadata. What only docs/tables.md
    says of fields is left out, since every reader parses it with every part."""
    described = {field.name: (field.metadata or {}).get(b"description", b"").decode() for field in schema}
    return pa.schema(map(_brief, schema)).with_metadata(
        {
            "nightscribe.table": table,
            "nightscribe.schema_version": str(SCHEMA_VERSION),
            "nightscribe.version": package_version(),
            "nightscribe.engine_version": engine_version,
            # Readers that drop the metadata of fields still show this one.
            "nightscribe.columns": json.dumps(described, ensure_ascii=False),
        }
    )


def _brief(field: pa.Field) -> pa.Field:
    said = {name: text for name, text in (field.metadata or {}).items() if name in (b"description", b"unit")}
    return field.with_type(_brief_type(field.type)).with_metadata(said or None)


def _brief_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_brief(kind.value_field))
    return pa.struct(map(_brief, kind)) if pa.types.is_struct(kind) else kind
