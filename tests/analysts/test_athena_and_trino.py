"""The DDL for Athena and Trino: parsed, held against the schema, and its views run on the same tables.

Not run on either: what is left unproved is their own reading of Parquet.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
import sqlglot
from sqlglot import exp

from tasks.schema import TABLES
from tests.tasks.views import VIEWS, connect

ENGINES = ("athena", "trino")
PLAIN = {
    "string": "TEXT", "double": "DOUBLE", "int32": "INT", "int64": "BIGINT", "timestamp[us, tz=UTC]": "TIMESTAMP",
    "date32[day]": "DATE",
}  # fmt: skip


def statements(engine: str) -> list[exp.Create]:
    parsed = sqlglot.parse((VIEWS.parent / f"tables.{engine}.sql").read_text(), read=engine)
    found = [statement for statement in parsed if statement is not None]
    assert all(isinstance(statement, exp.Create) for statement in found), "something was not understood"
    return [statement for statement in found if isinstance(statement, exp.Create)]


def by_name(engine: str, kind: str) -> dict[str, exp.Create]:
    return {found.find(exp.Table).name: found for found in statements(engine) if found.kind == kind}  # type: ignore[union-attr]


def sql_type(kind: pa.DataType) -> str:
    """As DuckDB writes it, which sqlglot turns both into."""
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{field.name} {sql_type(field.type)}' for field in kind)})"
    return PLAIN[str(kind)]


def declared(table: exp.Create) -> list[tuple[str, str]]:
    columns = table.this.expressions
    partition = table.find(exp.PartitionedByProperty)
    if isinstance(partition, exp.PartitionedByProperty) and isinstance(partition.this, exp.Schema):
        columns = [*columns, *partition.this.expressions]
    return [(column.name, column.kind.sql("duckdb").replace("TIMESTAMP(3)", "TIMESTAMP")) for column in columns]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("table", TABLES)
def test_every_column_and_type_agrees_with_the_schema(engine: str, table: str) -> None:
    expected = [(field.name, sql_type(field.type)) for field in TABLES[table]] + [("ingest_date", "DATE")]
    assert declared(by_name(engine, "TABLE")[table]) == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_all_tables_and_views_are_there_in_their_places(engine: str) -> None:
    assert set(by_name(engine, "TABLE")) == set(TABLES)
    assert set(by_name(engine, "VIEW")) == {f"latest_{table}" for table in TABLES}
    for name, table in by_name(engine, "TABLE").items():
        places = re.findall(r"s3://tables/calls/(\w+)/", table.sql(engine))
        assert places and set(places) == {name}


def test_a_wrong_type_would_be_found() -> None:
    wrong = (VIEWS.parent / "tables.athena.sql").read_text().replace("`speech_s` double", "`speech_s` float", 1)
    (table, *_) = sqlglot.parse(wrong, read="athena")
    assert isinstance(table, exp.Create)
    assert ("speech_s", "DOUBLE") not in declared(table)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_views_show_what_those_of_duckdb_show(engine: str, tables: Path) -> None:
    database = connect(tables)
    for table in TABLES:
        database.execute(f"ALTER VIEW latest_{table} RENAME TO ours_{table}")
    database.execute("CREATE SCHEMA calls; ATTACH ':memory:' AS hive; CREATE SCHEMA hive.calls")
    for table in TABLES:
        parts = f"read_parquet('{tables}/{table}/*/*.parquet')"
        database.execute(f"CREATE VIEW hive.calls.{table} AS SELECT * FROM {parts}")
    database.execute("USE hive.calls")
    for view in by_name(engine, "VIEW").values():
        database.execute(view.sql("duckdb"))
    for table in TABLES:
        # Their own have the number of the row behind the columns.
        theirs = database.execute(f"SELECT * EXCLUDE (newest) FROM latest_{table} ORDER BY ALL").fetchall()
        assert theirs == database.execute(f"SELECT * FROM memory.main.ours_{table} ORDER BY ALL").fetchall()
        assert theirs
