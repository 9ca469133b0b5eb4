"""What the tables promise to those who read them, with each library that they are read with.

Pruning is proved by what happens, not by a plan: a part that a reader has no business in is spoilt, and a query that
need not look at it must come out right, while one that must look at it fails.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.schema import TABLES
from tests.analysts.calls import DAY_1, DAY_2, ENGLISH, KOREAN, uri
from tests.analysts.readers import ArrowDataset, DuckDB, Pandas, Polars, Reader, Spark

READERS = {"duckdb": DuckDB, "polars": Polars, "pandas": Pandas, "pyarrow.dataset": ArrowDataset}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    leave_out = pytest.fail if os.environ.get("CI") else pytest.skip
    if importlib.util.find_spec("pyspark") is None:
        leave_out("no pyspark: pip install -c constraints.txt pyspark")
    if shutil.which("java") is None:
        leave_out("no Java for Spark (Debian: openjdk-17-jre-headless)")
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("spark")),
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.fixture(params=[*READERS, "spark"])
def reader(request: pytest.FixtureRequest) -> Reader:
    if request.param == "spark":
        return Spark(request.getfixturevalue("spark"))
    return READERS[request.param]()


def truth(dest: Path, table: str) -> list[dict[str, Any]]:
    """Every row as its part has it, with its folder's day."""
    rows: list[dict[str, Any]] = []
    for path in dest.glob(f"{table}/*/*.parquet"):
        day = {"ingest_date": dt.date.fromisoformat(path.parent.name.removeprefix("ingest_date="))}
        rows += [row | day for row in pq.ParquetFile(path).read().to_pylist()]
    return rows


def kind(type_: pa.DataType) -> str:
    """A type, whatever name a library has for it: strings may be large, lists too."""
    if pa.types.is_map(type_):
        return f"map of {kind(type_.key_type)} to {kind(type_.item_type)}"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return f"list of {kind(type_.value_type)}"
    if pa.types.is_struct(type_):
        return f"struct of {', '.join(f'{field.name} {kind(field.type)}' for field in type_)}"
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "string"
    return str(type_).replace("Etc/UTC", "UTC")


def alike(rows: list[dict[str, Any]]) -> list[str]:
    """In one order, and moments in one time zone."""
    return sorted(repr(sorted((name, _in_utc(value)) for name, value in row.items())) for row in rows)


def _in_utc(value: Any) -> Any:
    return value.astimezone(dt.UTC).isoformat() if isinstance(value, dt.datetime) else value


@pytest.mark.parametrize("table", TABLES)
def test_every_row_and_every_value(reader: Reader, tables: Path, table: str) -> None:
    expected = truth(tables, table)
    found = reader.read(tables, table)
    assert found.num_rows == len(expected) > 6
    assert alike(found.to_pylist()) == alike(expected)


@pytest.mark.parametrize("table", TABLES)
def test_every_type(reader: Reader, tables: Path, table: str) -> None:
    found = {field.name: kind(field.type) for field in reader.read(tables, table).schema}
    expected = {field.name: kind(field.type) for field in TABLES[table]}
    assert found == expected | {"ingest_date": "date32[day]"}
    assert list(found)[: len(expected)] == list(expected)


def test_korean_and_the_words_within_segments(reader: Reader, tables: Path) -> None:
    texts = reader.read(tables, "transcripts")["text"].to_pylist()
    assert KOREAN in texts
    assert reader.first_words(tables) == {" " + ENGLISH.split()[0], " " + KOREAN.split()[0], " the"}


def spoil(path: Path) -> None:
    """Every byte of the part's pages. Its footer stays: some look into one, of whichever part, for the columns."""
    content = bytearray(path.read_bytes())
    footer_bytes = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer_bytes] = b"\xff" * (len(content) - 4 - footer_bytes)
    path.write_bytes(content)


@pytest.mark.parametrize("table", TABLES)
def test_a_day_is_read_without_the_parts_of_others(reader: Reader, tables: Path, tmp_path: Path, table: str) -> None:
    dest = tmp_path / "tables"
    shutil.copytree(tables, dest)
    (young,) = dest.glob(f"{table}/ingest_date=2026-03-03/*.parquet")
    spoil(young)
    found = reader.read(dest, table, day=DAY_1.date())
    assert alike(found.to_pylist()) == alike(
        [row for row in truth(tables, table) if row["ingest_date"] == DAY_1.date()]
    )
    with pytest.raises(Exception, match=r"."):
        reader.read(dest, table)


def test_a_part_whose_statistics_rule_it_out_is_not_read(reader: Reader, tables: Path, tmp_path: Path) -> None:
    dest = tmp_path / "tables"
    shutil.copytree(tables, dest)
    (lees,) = dest.glob(f"transcripts/ingest_date={DAY_2.date()}/*.parquet")
    spoil(lees)
    found = reader.read(dest, "transcripts", before=uri("lee/"))
    assert found["source_uri"].to_pylist().count(uri("kim/en_000.flac")) == 2
    assert found.num_rows == 3
    with pytest.raises(Exception, match=r"."):
        reader.read(dest, "transcripts", before=uri("lef"))
