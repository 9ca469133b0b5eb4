"""What names a recording below DEST besides the tables: plans, run records, reports."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from stt_engine.errors import DestinationRefused
from tasks.plan_log import PlanLog
from tasks.row_keys import file_key
from tasks.storage import NotStored, Store

INSTEAD = "[forgotten]"


@dataclass(frozen=True, slots=True)
class Traces:
    plans: tuple[int, ...]
    """Numbers in the log."""
    records: tuple[str, ...]
    """Paths."""
    reports: tuple[str, ...]
    """Paths of those that name it, or another recording whose name ends as its does."""
    certain: int
    """How many things name it and no other."""
    file_ids: frozenset[str]
    """As which it was planned or failed: under these its samples may lie in a spool."""


def find_traces(store: Store, uri: str) -> Traces:
    """Changes nothing. Raises DestinationRefused for a plan or record that cannot be read."""
    plans = []
    file_ids: set[str] = set()
    for number, entry in PlanLog(store).all_entries():
        versions = {file.file_id for batch in entry.batches for file in batch.files if file.uri == uri}
        if versions:
            plans.append(number)
            file_ids |= versions
    records = []
    for path in _paths(store, "_runs", ".json"):
        document = _document(store, path)
        if document is not None and _cleaned(document, uri) != document:
            records.append(path)
            failures = [f for f in document.get("failures", ()) if f.get("uri") == uri]
            file_ids |= {file_key(uri, failure.get("version", "")).hex() for failure in failures}
    pages = {path: _read(store, path) for path in _paths(store, "_reports", "")}
    last = uri.rstrip("/").rpartition("/")[2]  # pages show keys, not whole URIs
    reports = tuple(path for path, page in pages.items() if _names(page, uri) or _names(page, last))
    certain = len(plans) + len(records) + sum(_names(page, uri) for page in pages.values())
    return Traces(tuple(plans), tuple(records), reports, certain, frozenset(file_ids))


def erase_traces(store: Store, traces: Traces, uri: str) -> None:
    """Call it when no run that is at work has the recording in its plan. A report that names it goes whole; first,
    since what names it for certain must be there as long as reports that only may are."""
    for path in traces.reports:
        store.delete(path)
    for path in traces.records:
        document = _document(store, path)
        if document is not None:
            store.replace(path, json.dumps(_cleaned(document, uri), ensure_ascii=False, indent=1).encode())
    for number in traces.plans:
        PlanLog(store).without(number, uri)


def _paths(store: Store, folder: str, suffix: str) -> list[str]:
    return [stored.path for stored in store.list(folder) if stored.path.endswith(suffix)]


def _read(store: Store, path: str) -> bytes:
    try:
        return store.read(path)
    except NotStored:
        return b""


def _document(store: Store, path: str) -> dict[str, Any] | None:
    """None for one that is gone."""
    payload = _read(store, path)
    if not payload:
        return None
    try:
        document = json.loads(payload)
    except ValueError as error:
        raise DestinationRefused(
            f"{store.uri_of(path)} is no readable run record, and may name it; delete it, then forget"
        ) from error
    return document if isinstance(document, dict) else None


def _cleaned(document: dict[str, Any], uri: str) -> dict[str, Any]:
    """Without the failures of this recording; where else a text names it, it does no more."""
    left = [failure for failure in document.get("failures", ()) if failure.get("uri") != uri]
    named = re.compile(rf"(?<!\S){re.escape(uri)}(?=$|[\s:,;)'\"\]])")

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return INSTEAD if value == uri else named.sub(INSTEAD, value)
        if isinstance(value, list):
            return [clean(one) for one in value]
        if isinstance(value, dict):
            return {key: clean(one) for key, one in value.items()}
        return value

    cleaned: dict[str, Any] = clean(document | ({"failures": left} if "failures" in document else {}))
    return cleaned


def _names(page: bytes, name: str) -> bool:
    """In any of the ways in which a page may write it."""
    ways = (name, html.escape(name), quote(name), quote(name, safe=":/"), json.dumps(name)[1:-1])
    return any(way.encode() in page for way in ways)
