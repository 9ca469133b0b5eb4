"""What people wrote down of recordings, to hold the transcripts against: CSV, TSV, JSONL or Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from stt_engine.errors import UsageError

NAMES = ("uri", "source_uri", "key", "file")
"""Columns that say which recording is meant, in the order in which they are looked for."""
_SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".parquet": ""}
_SCHEMA = pa.schema([(name, pa.string()) for name in (*NAMES, "text", "language")])


@dataclass(frozen=True, slots=True)
class Reference:
    name: str
    """The whole of source_uri, or its end from a `/` on."""
    text: str
    language: str | None
    """Whisper code; None: as the transcript says."""


def read_references(path: Path) -> list[Reference]:
    """In the order of the file. Raises UsageError for a file that cannot be used, or has a recording twice.

    Lines without a text (null: nobody has written it down) are left out; an empty one says that nothing is said there.
    """
    table = _read(path)
    name = next((column for column in NAMES if column in table.column_names), None)
    if name is None or "text" not in table.column_names:
        raise UsageError(
            f"--reference {path}: its columns are {', '.join(table.column_names) or 'none'}; wanted are "
            f"{' or '.join(NAMES)}, and text"
        )
    nobody = pa.nulls(table.num_rows, pa.string())
    languages = table["language"] if "language" in table.column_names else nobody
    columns = (column.cast(pa.string()).to_pylist() for column in (table[name], table["text"], languages))
    found = [
        Reference(which, text, (language or "").strip().lower() or None)
        for which, text, language in zip(*columns, strict=True)
        if text is not None and which
    ]
    seen: set[str] = set()
    for reference in found:
        if reference.name in seen:
            raise UsageError(f"--reference {path}: {reference.name} stands there twice; leave one text for each")
        seen.add(reference.name)
    if not found:
        raise UsageError(f"--reference {path}: holds no text")
    return found


def _read(path: Path) -> pa.Table:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(f"--reference {path}: known by their names are {', '.join(_SUFFIXES)}; rename it")
    try:
        if suffix == ".parquet":
            found = pa.parquet.read_schema(path).names
            return pa.parquet.read_table(path, columns=[name for name in _SCHEMA.names if name in found])
        if delimiter := _SUFFIXES[suffix]:
            return pa.csv.read_csv(
                path,
                parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                # Everything is text: `0012` keeps its zeros, and `null` may well have been said.
                convert_options=pa.csv.ConvertOptions(column_types=_SCHEMA, strings_can_be_null=False),
            )
        options = pa.json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore")
        table = pa.json.read_json(path, parse_options=options)
        return table.select([name for name in table.column_names if table[name].null_count < table.num_rows])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"--reference {path} cannot be read: {said}") from error
