"""docs/tables.md says what the schema says, and the schema what lies in the tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.schema import SCHEMA_VERSION, TABLES

ROOT = Path(__file__).parents[2]
RELEASED = {
    "transcripts": """
        source_uri source_version options_hash file_id batch_id transcribed_at status error_type error_message warnings
        attempts duration_s speech_s covered_s channels sample_rate_hz codec size_bytes modified_at content_sha256
        language language_probability text segments labels model backend compute_type engine_version schema_version
        run_id processing_s
    """,
    "segments": """
        source_uri source_version options_hash file_id batch_id transcribed_at segment_id channel start_s end_s text
        avg_logprob no_speech_prob compression_ratio temperature flags
    """,
    "words": """
        source_uri source_version options_hash file_id batch_id transcribed_at segment_id channel word_id word start_s
        end_s probability
    """,
}
"""Columns that somebody's query may count on, in their order. Only ever added to, at the end."""


def script() -> ModuleType:
    spec = spec_from_file_location("write_tables_page", ROOT / "scripts" / "write_tables_page.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_schema_says() -> None:
    assert (ROOT / "docs" / "tables.md").read_text() == script().page(), "run: python scripts/write_tables_page.py"


def test_a_changed_schema_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    page = script()
    before = page.page()
    words = TABLES["words"].append(
        pa.field("pitch_hz", pa.float64(), metadata={"description": "d", "null": "never", "since": "9.9.9"})
    )
    monkeypatch.setattr(page, "TABLES", dict(TABLES) | {"words": words})
    added = set(page.page().splitlines()) - set(before.splitlines())
    assert added == {"| `pitch_hz` | double |  | never | d | 9.9.9 |"}


def test_every_column_and_nested_field_has_its_line() -> None:
    lines = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "tables.md").read_text(), re.MULTILINE)
    assert sum(len(schema) for schema in TABLES.values()) < len(lines)
    assert {"labels", "segments[].flags", "segments[].words[].probability", "word_id"} <= set(lines)


@pytest.mark.parametrize("table", TABLES)
def test_columns_stand_where_they_stood(table: str) -> None:
    released = RELEASED[table].split()
    assert TABLES[table].names[: len(released)] == released


@pytest.mark.parametrize("table", TABLES)
def test_parts_have_the_columns_in_order_and_say_their_version(tables: Path, table: str) -> None:
    parts = list((tables / table).glob("*/*.parquet"))
    assert len(parts) == 3
    for part in parts:
        schema = pq.read_schema(part)
        assert schema.equals(TABLES[table])
        assert schema.metadata[b"nightscribe.schema_version"] == str(SCHEMA_VERSION).encode()
        if table == "transcripts":
            assert set(pq.ParquetFile(part).read(["schema_version"])["schema_version"].to_pylist()) == {SCHEMA_VERSION}


@pytest.mark.parametrize("table", TABLES)
def test_what_is_never_null_never_is(tables: Path, table: str) -> None:
    """On what was heard in recordings, in silence, and in a file that is none."""
    found = set()
    for part in (tables / table).glob("*/*.parquet"):
        for row in pq.ParquetFile(part).read().to_pylist(maps_as_pydicts="strict"):
            found |= set(nulls(row, TABLES[table]))
    allowed = set(may_be_null(TABLES[table]))
    assert found <= allowed
    assert found or table != "transcripts"


def nulls(row: dict[str, Any], fields: pa.Schema | pa.StructType, inside: str = "") -> Iterator[str]:
    for field in fields:
        value = row[field.name]
        if value is None:
            yield inside + field.name
        elif pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            for item in value:
                yield from nulls(item, field.type.value_type, f"{inside}{field.name}[].")


def may_be_null(fields: pa.Schema | pa.StructType, inside: str = "") -> Iterator[str]:
    for field in fields:
        if field.metadata[b"null"] != b"never":
            yield inside + field.name
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            yield from may_be_null(field.type.value_type, f"{inside}{field.name}[].")
