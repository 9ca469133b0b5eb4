"""The tables as their readers see them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tasks.batches import form_batches
from tasks.land import land_batch
from tasks.rows import from_parquet, segments_table, to_parquet, transcripts_table, words_table
from tasks.schema import SCHEMA_VERSION, SEGMENTS, TABLES, TRANSCRIPTS, WORDS
from tasks.storage import Store
from tasks.types import LandingBatch
from tests.tasks.builders import NOON, OPTIONS, audio_files, failed, landed, stamp

DAY = date(2026, 3, 1)


def batch_of(count: int) -> LandingBatch:
    members = [(file, 0) for file in reversed(audio_files(count))]
    (batch,) = form_batches(members, options_hash=OPTIONS, ingest_date=DAY)
    return batch


def table_of(count: int) -> pa.Table:
    batch = batch_of(count)
    results = [failed(file) if number % 3 == 2 else landed(file) for number, file in enumerate(batch.files)]
    return transcripts_table(batch, results, stamp(), transcribed_at=NOON)


def test_every_field_says_what_it_is() -> None:
    for schema in TABLES.values():
        for field in schema:
            assert field.metadata[b"description"], field.name
            assert (field.metadata.get(b"unit") == b"s") == field.name.endswith("_s"), field.name
            assert field.type != pa.duration("us")


def test_a_part_says_what_it_is() -> None:
    for name, table in (
        ("transcripts", table_of(3)),
        ("segments", segments_table(table_of(3))),
        ("words", words_table(table_of(3))),
    ):
        read = from_parquet(to_parquet(table))
        assert read.schema.equals(TABLES[name])
        metadata = read.schema.metadata
        assert metadata[b"nightscribe.table"] == name.encode()
        assert metadata[b"nightscribe.schema_version"] == str(SCHEMA_VERSION).encode()
        assert metadata[b"nightscribe.engine_version"] == b"1.2.3"
        assert metadata[b"nightscribe.version"]
        described = json.loads(metadata[b"nightscribe.columns"])
        assert set(described) == set(TABLES[name].names)
        assert read.schema.field("source_uri").metadata[b"description"]
        for field in TABLES[name]:
            said = {key: text for key, text in field.metadata.items() if key in (b"description", b"unit")}
            assert read.schema.field(field.name).metadata == said, "null and since are for docs/tables.md"


def test_zstd_and_sorted() -> None:
    payload = to_parquet(table_of(7))
    metadata = pq.read_metadata(pa.BufferReader(payload))
    group = metadata.row_group(0)
    assert metadata.num_row_groups == 1
    pruned_by = {group.column(at).path_in_schema for at in range(group.num_columns) if group.column(at).is_stats_set}
    assert pruned_by >= {"source_uri", "options_hash", "transcribed_at", "duration_s", "status"}
    assert not {name for name in pruned_by if "." in name} | pruned_by & {"text", "error_message"}
    assert {group.column(index).compression for index in range(group.num_columns)} == {"ZSTD"}
    uris = from_parquet(payload)["source_uri"].to_pylist()
    assert uris == sorted(uris)
    assert len(uris) == 7


def test_a_row_holds_what_the_result_held() -> None:
    batch = batch_of(2)
    table = transcripts_table(batch, [landed(batch.files[0]), failed(batch.files[1])], stamp(), transcribed_at=NOON)
    bad, good = table.to_pylist()  # sorted: the batch was in reverse
    file = batch.files[0]
    assert good | {"segments": None} == {
        "source_uri": file.uri, "source_version": file.version, "options_hash": OPTIONS, "file_id": file.file_id,
        "batch_id": batch.batch_id, "transcribed_at": NOON, "status": "landed", "error_type": None,
        "error_message": None, "warnings": ["last", "declared 3 s", "a warning"], "attempts": 1, "duration_s": 2.5,
        "speech_s": 1.5, "covered_s": 1.25, "channels": 2, "sample_rate_hz": 8000, "codec": "pcm_mulaw",
        "size_bytes": file.size_bytes, "modified_at": file.modified_at, "content_sha256": "ab" * 32, "language": "ko",
        "language_probability": 0.98, "text": "hello 안녕 bye", "segments": None, "labels": [("agent", "kim")],
        "model": "fixture", "backend": "fake", "compute_type": "float32", "engine_version": "1.2.3",
        "schema_version": SCHEMA_VERSION, "run_id": "run-1", "processing_s": 0.5,
    }  # fmt: skip
    assert good["segments"][0] == {
        "segment_id": 0, "channel": None, "start_s": 0.25, "end_s": 1.0, "text": "hello 안녕", "avg_logprob": -0.2,
        "no_speech_prob": 0.01, "compression_ratio": 1.1, "temperature": 0.0, "flags": ["low_confidence"],
        "words": [
            {"word": " hello", "start_s": 0.25, "end_s": 0.5, "probability": 0.9},
            {"word": " 안녕", "start_s": 0.5, "end_s": 1.0, "probability": 0.8},
        ],
    }  # fmt: skip
    assert (bad["status"], bad["error_type"], bad["text"], bad["segments"]) == ("failed", "NotAudio", None, [])
    assert "no container" in bad["error_message"]


def test_segments_and_words_are_the_transcripts_laid_flat() -> None:
    table = table_of(5)
    expected_segments: list[dict[str, Any]] = []
    expected_words: list[dict[str, Any]] = []
    for row in table.to_pylist():
        same = {name: row[name] for name in SEGMENTS.names if name in row and name != "text"}
        number = 0
        for segment in row["segments"]:
            expected_segments.append(same | {name: value for name, value in segment.items() if name != "words"})
            for word in segment["words"]:
                where = {"segment_id": segment["segment_id"], "channel": segment["channel"], "word_id": number}
                expected_words.append(same | where | word)
                number += 1
    assert segments_table(table).to_pylist() == expected_segments
    assert words_table(table).to_pylist() == expected_words
    assert len(expected_words) == 3 * len([row for row in table.to_pylist() if row["segments"]])
    assert segments_table(table.slice(2, 0)).schema.equals(SEGMENTS)
    assert words_table(table.slice(0, 0)).num_rows == 0


@pytest.mark.parametrize("all_failed", [True, False])
def test_every_reader_reads_the_same(local_store: Store, all_failed: bool) -> None:
    """Even where the first part holds nothing but nulls."""
    files = audio_files(20)
    batches = form_batches([(file, 0) for file in files], options_hash=OPTIONS, ingest_date=DAY, files_per_batch=4)
    for number, batch in enumerate(batches):
        bad = all_failed or number == 0
        land_batch(local_store, batch, [(failed if bad else landed)(file) for file in batch.files], stamp())
    for table, columns in (
        ("transcripts", ["source_uri", "status", "duration_s", "text", "error_type", "modified_at"]),
        ("segments", ["source_uri", "segment_id", "start_s", "text", "transcribed_at"]),
        ("words", ["source_uri", "word_id", "start_s", "word", "probability"]),
    ):
        where = f"{local_store.uri}/{table}/**/*.parquet"
        names = ", ".join(columns)
        with duckdb.connect() as database:
            database.execute("set timezone='UTC'")
            by_duckdb = database.execute(f"select {names} from read_parquet('{where}') order by all").fetchall()
        by_polars = polars.scan_parquet(where).select(columns).sort(columns[:2]).collect().rows()
        pandas_frame = pandas.read_parquet(f"{local_store.uri}/{table}", columns=columns)
        dataset = pyarrow.dataset.dataset(f"{local_store.uri}/{table}", partitioning="hive")
        by_arrow = [tuple(row.values()) for row in dataset.to_table(columns=columns).to_pylist()]
        schema = TABLES[table]
        assert all(dataset.schema.field(name).type == schema.field(name).type for name in schema.names)
        assert "ingest_date" in dataset.schema.names
        key = lambda row: row[:2]  # noqa: E731
        assert (
            sorted(map(_utc, by_duckdb), key=key) == sorted(map(_utc, by_polars), key=key) == sorted(by_arrow, key=key)
        )
        assert sorted(pandas_frame[columns[0]]) == sorted(row[0] for row in by_arrow)
        expected = {"transcripts": 20, "segments": 0 if all_failed else 32, "words": 0 if all_failed else 48}[table]
        assert len(by_arrow) == len(pandas_frame) == expected


def _utc(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.astimezone(UTC) if isinstance(value, datetime) else value for value in row)


def test_duckdb_knows_the_types(local_store: Store) -> None:
    batch = batch_of(2)
    land_batch(local_store, batch, [landed(file) for file in batch.files], stamp())
    with duckdb.connect() as database:
        where = f"read_parquet('{local_store.uri}/transcripts/**/*.parquet')"
        types = {name: kind for name, kind, *_ in database.execute(f"describe select * from {where}").fetchall()}
        labels = database.execute(f"select distinct labels['agent'] from {where}").fetchall()
        words = database.execute(f"select segments[1].words[2].word from {where}").fetchall()
    assert types["duration_s"] == "DOUBLE"
    assert types["transcribed_at"] == "TIMESTAMP WITH TIME ZONE"
    assert types["labels"] == "MAP(VARCHAR, VARCHAR)"
    assert types["ingest_date"] == "DATE"
    assert labels[0][0] in ("kim", ["kim"])
    assert words == [(" 안녕",)] * 2


def test_the_schemas_share_their_key_columns() -> None:
    shared = TRANSCRIPTS.names[:6]
    assert shared == ["source_uri", "source_version", "options_hash", "file_id", "batch_id", "transcribed_at"]
    assert SEGMENTS.names[:6] == WORDS.names[:6] == shared
