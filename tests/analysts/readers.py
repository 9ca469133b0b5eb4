"""The tables through each library that people read them with, as its users would write it."""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from functools import reduce
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds


class Reader(ABC):
    """One library. Rows come back as Arrow, so that they can be compared."""

    @abstractmethod
    def read(self, dest: Path, table: str, *, day: dt.date | None = None, before: str | None = None) -> pa.Table:
        """All columns and ingest_date; of one day alone, of addresses that sort before one, or both."""

    @abstractmethod
    def first_words(self, dest: Path) -> set[str]:
        """The first word of each transcript that has one, out of its nested columns."""


class DuckDB(Reader):
    def _ask(self, sql: str) -> pa.Table:
        with duckdb.connect() as database:
            database.execute("SET TimeZone = 'UTC'")
            return database.sql(sql).to_arrow_table()

    def read(self, dest: Path, table: str, *, day: dt.date | None = None, before: str | None = None) -> pa.Table:
        return self._ask(f"SELECT * FROM read_parquet('{dest}/{table}/*/*.parquet')" + _where(day, before))

    def first_words(self, dest: Path) -> set[str]:
        found = self._ask(f"SELECT segments[1].words[1].word AS word FROM '{dest}/transcripts/*/*.parquet'")
        return _present(found["word"].to_pylist())


class Polars(Reader):
    def _scan(self, dest: Path, table: str) -> polars.LazyFrame:
        return polars.scan_parquet(f"{dest}/{table}/*/*.parquet", hive_partitioning=True)

    def read(self, dest: Path, table: str, *, day: dt.date | None = None, before: str | None = None) -> pa.Table:
        found = self._scan(dest, table)
        if day is not None:
            found = found.filter(polars.col("ingest_date") == day)
        if before is not None:
            found = found.filter(polars.col("source_uri") < before)
        return found.collect().to_arrow()

    def first_words(self, dest: Path) -> set[str]:
        words = polars.col("segments").list.get(0, null_on_oob=True).struct.field("words")
        word = words.list.get(0, null_on_oob=True).struct.field("word")
        return _present(self._scan(dest, "transcripts").select(word).collect()["word"].to_list())


class Pandas(Reader):
    """Through pyarrow's types: pandas' own make objects of what may be null."""

    def read(self, dest: Path, table: str, *, day: dt.date | None = None, before: str | None = None) -> pa.Table:
        filters: list[tuple[str, str, str]] = []
        if day is not None:
            filters.append(("ingest_date", "=", day.isoformat()))  # to pandas a folder's name is text
        if before is not None:
            filters.append(("source_uri", "<", before))
        frame = pandas.read_parquet(f"{dest}/{table}", dtype_backend="pyarrow", filters=filters or None)
        found = pa.Table.from_pandas(frame, preserve_index=False)
        at = found.column_names.index("ingest_date")
        return found.set_column(at, "ingest_date", found["ingest_date"].cast(pa.string()).cast(pa.date32()))

    def first_words(self, dest: Path) -> set[str]:
        frame = pandas.read_parquet(f"{dest}/transcripts", columns=["segments"])
        return {row[0]["words"][0]["word"] for row in frame["segments"] if len(row)}


class ArrowDataset(Reader):
    def _dataset(self, dest: Path, table: str) -> ds.Dataset:
        days = ds.partitioning(pa.schema([("ingest_date", pa.date32())]), flavor="hive")
        return ds.dataset(f"{dest}/{table}", partitioning=days)

    def read(self, dest: Path, table: str, *, day: dt.date | None = None, before: str | None = None) -> pa.Table:
        wanted = [
            *([ds.field("ingest_date") == day] if day is not None else []),
            *([ds.field("source_uri") < before] if before is not None else []),
        ]
        condition = reduce(lambda one, other: one & other, wanted) if wanted else None
        return self._dataset(dest, table).to_table(filter=condition)

    def first_words(self, dest: Path) -> set[str]:
        segments = self._dataset(dest, "transcripts").to_table(columns=["segments"])["segments"]
        words = pc.struct_field(pc.list_flatten(segments), "words")
        firsts = pc.equal(pc.struct_field(pc.list_flatten(segments), "segment_id"), 0)
        return set(pc.struct_field(pc.list_element(words.filter(firsts), 0), "word").to_pylist())


class Spark(Reader):
    def __init__(self, session: Any) -> None:
        self._session = session

    def read(self, dest: Path, table: str, *, day: dt.date | None = None, before: str | None = None) -> pa.Table:
        found = self._session.read.parquet(f"{dest}/{table}")
        for condition in _conditions(day, before):
            found = found.where(condition)
        return found.toArrow()

    def first_words(self, dest: Path) -> set[str]:
        found = self._session.read.parquet(f"{dest}/transcripts")
        return _present([row.word for row in found.selectExpr("get(get(segments, 0).words, 0).word AS word").collect()])


def _conditions(day: dt.date | None, before: str | None) -> list[str]:
    return [
        *([f"ingest_date = DATE '{day}'"] if day is not None else []),
        *([f"source_uri < '{before}'"] if before is not None else []),
    ]


def _where(day: dt.date | None, before: str | None) -> str:
    conditions = _conditions(day, before)
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _present(words: list[str | None]) -> set[str]:
    return {word for word in words if word is not None}
