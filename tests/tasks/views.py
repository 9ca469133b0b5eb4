"""The views of deployments/sql, as an analyst loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

VIEWS = Path(__file__).parents[2] / "deployments" / "sql" / "views.duckdb.sql"


def connect(dest: Path | str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(f"SET VARIABLE dest = '{dest}'")
    connection.execute(VIEWS.read_text())
    return connection


def latest(dest: Path | str, table: str) -> list[dict[str, Any]]:
    """All rows of latest_TABLE."""
    found = connect(dest).execute(f"SELECT * FROM latest_{table}")
    columns = [column[0] for column in found.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]
