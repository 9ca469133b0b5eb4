"""`nightscribe compact`: here and now, without Prefect."""

from __future__ import annotations

import json
from dataclasses import asdict

from flows.console import stderr
from tasks.compact import compact_tables


def compact_once(dest: str, *, target_bytes: int, dry_run: bool, as_json: bool) -> None:
    """The figures on stdout as JSON, if they are asked for; the line for people on stderr."""
    with stderr.status("compacting"):
        summary = compact_tables(dest, target_bytes=target_bytes, dry_run=dry_run)
    if as_json:
        print(json.dumps(asdict(summary), ensure_ascii=False))  # noqa: T201 - the result
    stderr.print(summary.line, highlight=False, soft_wrap=True)
