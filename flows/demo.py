"""`nightscribe demo`: the bundled recordings through the real flow, and a first look at the table."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import duckdb
from rich.text import Text

from flows.console import results_table, stderr, stdout
from flows.prefect_environment import set_defaults
from flows.run_command import nothing_new, run_flow
from tasks.prepare import prepare
from tasks.settings import RunSettings


def run_demo(dest: Path) -> int:
    """Returns the exit status: 0 when every bundled recording has landed."""
    stderr.print("a toy model made for tests, which knows some hundred words of call-centre talk", style="dim")
    with as_file(files("flows") / "demo_recordings") as recordings:
        settings = RunSettings(source=str(recordings), dest=str(dest.absolute()), model="fixture", cpu_workers=1)
        set_defaults(verbose=False)
        summary = nothing_new(prepare(settings)) or run_flow(settings)
    stderr.print(summary.line, highlight=False, soft_wrap=True)
    parts = f"{dest}/transcripts/*/*.parquet"
    _show_rows(parts)
    grouped = f"SELECT language, count(*) AS files, sum(duration_s) AS seconds FROM '{parts}' GROUP BY ALL"
    lines = (
        f"\nThe tables lie in {dest}/ as Parquet. With DuckDB, for example:",
        f"  .venv/bin/python -c \"import duckdb; duckdb.sql('''{grouped}''').show()\"",
    )
    for line in lines:
        stdout.print(line, highlight=False, soft_wrap=True)
    return 1 if summary.failed_retryable or summary.failed_terminal else 0


def _show_rows(parts: str) -> None:
    table = results_table("file", "seconds", "language", "status", "first words")
    query = f"SELECT source_uri, duration_s, language, status, text FROM '{parts}' ORDER BY source_uri"
    for uri, duration_s, language, status, text in duckdb.connect().execute(query).fetchall():
        words = Text(text or "(no speech)")
        words.truncate(38, overflow="ellipsis")  # in cells of the terminal: a Korean letter takes two
        table.add_row(Path(uri).name, f"{duration_s or 0:.1f}", language or "-", status, words)
    stdout.print(table)
