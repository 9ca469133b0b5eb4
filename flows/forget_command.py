"""`nightscribe forget`: say what is there, ask, erase."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import typer

from flows.console import stderr
from stt_engine.errors import UsageError
from tasks.forget import IN_SOURCE, forget_recording, look_for, not_there
from tasks.parts import require_tables
from tasks.storage import open_store


def forget_once(uri: str, dest: str, *, yes: bool, spool: str | None, as_json: bool) -> None:
    """The figures on stdout as JSON, if they are asked for; the line for people on stderr."""
    if not yes:
        _ask(uri, dest)
    with stderr.status("erasing"):
        summary = forget_recording(uri, dest, spool=spool)
    if as_json:
        print(json.dumps(asdict(summary), ensure_ascii=False))  # noqa: T201 - the result
    stderr.print(summary.line, highlight=False, markup=False, soft_wrap=True)


def _ask(uri: str, dest: str) -> None:
    store = open_store(dest)
    require_tables(store)
    found = look_for(store, uri)
    if not found.is_anywhere:
        raise not_there(store, uri)
    counts = ", ".join(f"{count} rows of {table}" for table, count in found.rows.items())
    if not sys.stdin.isatty():
        raise UsageError(f"{uri} has {counts}; nothing was erased: give --yes where nobody can be asked")
    stderr.print(f"{uri} has {counts}", highlight=False, markup=False, soft_wrap=True)
    stderr.print(IN_SOURCE, highlight=False, soft_wrap=True)
    if not typer.confirm("Erase them? This cannot be undone", default=False, err=True):
        raise UsageError("nothing was erased")
