"""`nightscribe export`: transcripts out of the tables, a file for each recording."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from flows.console import row_progress, stderr, stdout
from tasks.export import export_transcripts


def export_once(dest: str, to: Path, *, output_format: str, where: str | None, as_json: bool) -> None:
    """What it came to on stdout: the figures as JSON, if they are asked for, else a line."""
    with row_progress("exporting") as report:
        summary = export_transcripts(dest, to, output_format=output_format, where=where, report=report)
    if as_json:
        print(json.dumps(asdict(summary), ensure_ascii=False))  # noqa: T201 - the result
    (stderr if as_json else stdout).print(summary.line, highlight=False, markup=False, soft_wrap=True)
