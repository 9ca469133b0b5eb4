"""The rows that count: of each recording the newest, as `latest_transcripts` in deployments/sql shows them, in bounded
memory and without an S3 client of DuckDB's own.

    columns of all parts that say which row is newest → parts again, a few at a time, without superseded rows
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

import duckdb
import numpy as np
import pyarrow as pa

from stt_engine.errors import UsageError
from tasks.compact_plan import NEWEST, superseded_rows
from tasks.live_parts import LiveParts
from tasks.parts import Part, partition_date, read_columns, read_parts
from tasks.schema import TRANSCRIPTS
from tasks.storage import Store

READ_AT_ONCE_BYTES = 64_000_000
"""Of parts, as they are stored; one larger part is read alone."""


class Condition:
    """A condition in DuckDB's SQL on the columns of `transcripts` and `ingest_date`, as it would stand behind WHERE.

    It sees one row at a time and nothing else: no file, no other table. Raises UsageError for one that cannot be used,
    here or, where it depends on what is in the rows, when it meets them.
    """

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._database = duckdb.connect()
        self._database.execute("SET TimeZone = 'UTC'")
        self._database.execute("SET enable_external_access = false")
        self._database.execute("SET lock_configuration = true")
        # On a row of nulls, not on none: where there are no rows, DuckDB does not look at constants.
        nothing = pa.table({field.name: pa.nulls(1, field.type) for field in TRANSCRIPTS})
        self.of(_with_date(nothing, date.min))

    def of(self, rows: pa.Table) -> pa.Table:
        """Those of the rows for which it holds."""
        try:
            return self._database.from_arrow(rows).set_alias("transcripts").filter(self._sql).to_arrow_table()
        except duckdb.Error as error:
            said = " ".join(line.strip() for line in str(error).partition("\nLINE ")[0].splitlines() if line.strip())
            raise UsageError(
                f"--where {self._sql!r}: {said}. Give one condition on the columns of transcripts (docs/tables.md), "
                "such as: language = 'ko' AND duration_s > 60"
            ) from error


def current_tables(
    store: Store, live: LiveParts, columns: Sequence[str], *, where: Condition | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """How many rows were looked at, and of them the current ones under `where`, with these columns.

    Raises PartVanished: call it through `with_live_parts`.
    """
    parts = live.transcripts
    superseded = superseded_rows(list(read_columns(store, parts, NEWEST)))
    wanted = TRANSCRIPTS.names if where else columns
    at = 0
    for group in _gulps(parts):
        for part, table in read_parts(store, group, wanted):
            keep = np.ones(table.num_rows, dtype=bool)
            keep[list(superseded.get(at, ()))] = False
            current = table.filter(pa.array(keep))
            if where:
                current = where.of(_with_date(current, partition_date(part.stored.path)))
            yield table.num_rows, current.select(list(columns))
            at += 1


def _gulps(parts: Sequence[Part]) -> Iterator[list[Part]]:
    gulp: list[Part] = []
    for part in parts:
        if gulp and sum(found.stored.size_bytes for found in gulp) + part.stored.size_bytes > READ_AT_ONCE_BYTES:
            yield gulp
            gulp = []
        gulp.append(part)
    if gulp:
        yield gulp


def _with_date(table: pa.Table, day: date) -> pa.Table:
    return table.append_column("ingest_date", pa.array([day] * table.num_rows, pa.date32()))
