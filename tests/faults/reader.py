"""An analyst who reads all the while: a plain glob over the transcripts never fails and never counts a file twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

_TWICE = "SELECT source_uri FROM read_parquet('{glob}') GROUP BY ALL HAVING count(*) > 1"
_READ = "SELECT count(*), count(text), count(DISTINCT source_uri) FROM read_parquet('{glob}')"


@dataclass
class Readings:
    count: int = 0
    most_rows: int = 0
    faults: list[str] = field(default_factory=list)


@contextmanager
def reading(dest: Path) -> Iterator[Readings]:
    """Reads until the block is left; what went wrong stands in `faults`."""
    found, over = Readings(), threading.Event()

    def read() -> None:
        connection = duckdb.connect()
        glob = f"{dest}/transcripts/*/*.parquet"
        while not over.wait(0.02):
            if not any(dest.glob("transcripts/*/*.parquet")):
                continue
            try:
                twice = connection.execute(_TWICE.format(glob=glob)).fetchall()
                rows, _, files = connection.execute(_READ.format(glob=glob)).fetchone() or (0, 0, 0)
            except duckdb.Error as error:
                found.faults.append(str(error))
                continue
            found.count += 1
            if twice or rows != files:
                found.faults.append(f"{rows} rows of {files} files; twice: {twice}")
            if rows < found.most_rows:
                found.faults.append(f"{rows} rows, after {found.most_rows}")
            found.most_rows = max(found.most_rows, rows)

    reader = threading.Thread(target=read, name="reader", daemon=True)
    reader.start()
    try:
        yield found
    finally:
        over.set()
        reader.join()
