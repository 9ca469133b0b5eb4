"""Writes docs/tables.md from tasks/schema.py: what readers of the tables may rely on, column by column.

    python scripts/write_tables_page.py

Run by hand when the schema changes; tests/analysts/test_tables_page.py fails until it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from a checkout, installed or not

from tasks.schema import SCHEMA_VERSION, TABLES  # noqa: E402

TARGET = ROOT / "docs" / "tables.md"

INTRODUCTION = f"""# The tables

Made from `tasks/schema.py` by `scripts/write_tables_page.py`; change it there. How to ask the tables:
[analysts.md](analysts.md).

Schema version {SCHEMA_VERSION}. Each row of `transcripts` says the version it was written under in `schema_version`,
each part of every table in its Parquet metadata (`nightscribe.schema_version`, beside `nightscribe.table`,
`nightscribe.version`, `nightscribe.engine_version` and `nightscribe.columns`, the descriptions below as JSON). The
version is raised when a column changes its meaning or goes; a new column that may be null does not raise it.

- Columns stand in this order in every part. New ones come behind them; fields of structs\n  are to be found by name.
- `null` says when a column is null. Everywhere else it has a value: lists and maps are empty rather than null.
- Parquet itself enforces that only for the columns marked `required`; the others are optional there.
- Times of day are UTC, in microseconds. Seconds are doubles.
- `ingest_date` is no column of the parts but the name of their folder (`ingest_date=YYYY-MM-DD`, UTC): the partition in
  which a row lies now. Compaction may move it; what is new is asked for by `transcribed_at`.
- The tables join on `file_id, options_hash, batch_id`, segments and words on `segment_id` too.
- `since` is the version of Nightscribe that brought the column.
"""
ABOUT = {
    "transcripts": "One row for each file that was transcribed or failed for good, another each time it is done again.",
    "segments": "One row for each segment, derived from `transcripts.segments`.",
    "words": "One row for each word, derived likewise; empty without `--timestamps word`.",
}
HEAD = "| column | type | unit | null | meaning | since |\n|---|---|---|---|---|---|"


def page() -> str:
    tables = (f"## {name}\n\n{ABOUT[name]}\n\n{HEAD}\n" + "\n".join(rows(schema)) for name, schema in TABLES.items())
    return "\n".join([INTRODUCTION, *(f"{table}\n" for table in tables)])


def rows(fields: pa.Schema | pa.StructType, inside: str = "") -> Iterator[str]:
    """A line for each column, and below a list of structs one for each of its fields."""
    for field in fields:
        said = {key.decode(): value.decode() for key, value in field.metadata.items()}
        null = said["null"] if field.nullable else f"{said['null']}; required"
        cells = (f"`{inside}{field.name}`", type_name(field.type), said.get("unit", ""), null, said["description"])
        yield f"| {' | '.join(cells)} | {said['since']} |"
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            yield from rows(field.type.value_type, f"{inside}{field.name}[].")


def type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        inner = "struct" if pa.types.is_struct(kind.value_type) else type_name(kind.value_type)
        return f"list of {inner}"
    if pa.types.is_map(kind):
        return f"map of {type_name(kind.key_type)} to {type_name(kind.item_type)}"
    return {"timestamp[us, tz=UTC]": "timestamp"}.get(str(kind), str(kind))


if __name__ == "__main__":
    TARGET.write_text(page())
    print(f"written: {TARGET.relative_to(ROOT)}")
