"""Reading what has landed as an analyst would: DuckDB over the Parquet parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb


def query(sql: str, dest: Path | str) -> list[dict[str, Any]]:
    """`sql` over the tables of DEST: {transcripts}, {segments} and {words} stand for all their parts."""
    names = ("transcripts", "segments", "words")
    parts = {name: f"read_parquet('{dest}/{name}/*/*.parquet')" for name in names}
    found = duckdb.connect().execute(sql.format(**parts))
    columns = [column[0] for column in found.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


def rows(dest: Path | str) -> dict[str, dict[str, Any]]:
    """Rows of the transcripts by file name; AssertionError where a file has two."""
    found = query("SELECT * FROM {transcripts}", dest)
    by_name = {row["source_uri"].rpartition("/")[2]: row for row in found}
    assert len(by_name) == len(found), "a file landed twice"
    return by_name
