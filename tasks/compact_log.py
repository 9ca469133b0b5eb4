"""Which parts were rewritten into which: an append-only log of compactions in DEST, like the log of plans.

    _compactions/00000003.json    what becomes of which parts; created exclusively under the next number, never changed
    _compactions/00000003.done    its outputs stand and its inputs are gone

The next number may be taken only by one who has seen every record before it done, and has listed the parts after that.
So no part is ever an input of two records, and whoever finds a record that is not done can finish it: everything that
it does follows from what it names. It names parts and rows by position, never a recording.

A name that was an input is retired: whatever appears under it later was written by a process that stood still for
long, its rows are elsewhere, and everybody may delete it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from stt_engine.errors import DestinationRefused
from tasks.liveness import RunIdentity
from tasks.newer import refuse_newer
from tasks.parts import batch_of_path
from tasks.storage import NotStored, Store, Stored

FORMAT = 1
KEEP_DONE = timedelta(days=90)
"""A process that stood still for longer than this, and then goes on, may land rows a second time."""
_NAME = re.compile(r"_compactions/(\d{8,})\.(json|done)")

Kind = Literal["compact", "forget"]


@dataclass(frozen=True, slots=True)
class Input:
    """A part that goes."""

    path: str
    """Of the transcripts; the parts of the other tables have the same name."""
    dropped: tuple[int, ...] = ()
    """Positions of the rows that the output is to leave out."""
    dropped_superseded: tuple[int, ...] = ()
    """The same, in the part's share of `_superseded`."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Parts that become one. Its name is like no other, and sorts behind those of its inputs (see ARCHITECTURE.md)."""

    output: str
    inputs: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class CompactionRecord:
    nonce: str
    run: RunIdentity
    created_at: datetime
    kind: Kind
    """What becomes of dropped rows: "compact" remembers in `_superseded` that they were done, "forget" does not."""
    merges: tuple[Merge, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    number: int
    record: CompactionRecord
    done: bool


@dataclass(frozen=True, slots=True)
class CompactionState:
    highest: int
    entries: tuple[Entry, ...]

    @property
    def unfinished(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if not entry.done)

    @property
    def retired(self) -> tuple[Input, ...]:
        """Parts that are no more: what lies under their names is garbage."""
        return tuple(found for entry in self.entries if entry.done for found in _inputs(entry))

    @property
    def input_names(self) -> Set[str]:
        """Batches that have landed, whether their parts are still there or not."""
        return frozenset(batch_of_path(found.path) for entry in self.entries for found in _inputs(entry))


class CompactionLog:
    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> CompactionState:
        numbers, marks = self._names()
        entries = []
        for number in sorted(numbers):
            record = self._record(number)
            if record is not None:
                entries.append(Entry(number, record, number in marks))
        return CompactionState(max(numbers, default=0), tuple(entries))

    def highest(self) -> int:
        return max(self._names()[0], default=0)

    def is_done(self, number: int) -> bool:
        return self._store.stat(_mark_path(number)) is not None

    def append(self, number: int, record: CompactionRecord) -> bool:
        """False when somebody else took this number."""
        if self._store.create_exclusive(_record_path(number), _to_json(record)):
            return True
        # A request that timed out after it had succeeded is repeated and finds itself.
        winner = self._record(number)
        return winner is not None and winner.nonce == record.nonce

    def mark_done(self, number: int) -> None:
        self._store.replace(_mark_path(number), b"")

    def prune(self, store_now: datetime, needed: Set[str]) -> None:
        """Deletes records that were done long ago, but not the highest, nor one that names a batch of `needed`."""
        numbers, marks = self._names()
        for number, mark in marks.items():
            if number == max(numbers, default=0) or mark.modified_at >= store_now - KEEP_DONE:
                continue
            record = self._record(number)
            inputs = [found for merge in record.merges for found in merge.inputs] if record else []
            names = {batch_of_path(found.path) for found in inputs}
            if not names & needed:
                self._store.delete(_record_path(number))  # first: a record without its mark would be carried out again
                self._store.delete(_mark_path(number))

    def _names(self) -> tuple[set[int], dict[int, Stored]]:
        numbers, marks = set(), {}
        for stored in self._store.list("_compactions"):
            name = _NAME.fullmatch(stored.path)
            if name and name[2] == "json":
                numbers.add(int(name[1]))
            elif name:
                marks[int(name[1])] = stored
        return numbers, marks

    def _record(self, number: int) -> CompactionRecord | None:
        """None for one that was pruned."""
        try:
            payload = self._store.read(_record_path(number))
        except NotStored:
            return None
        try:
            document = json.loads(payload)
            refuse_newer(self._store.uri_of(_record_path(number)), "format", document["format"], FORMAT)
            return _from_json(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DestinationRefused(
                f"{self._store.uri_of(_record_path(number))} is no readable record of a compaction "
                f"({type(error).__name__}); restore it: it says which of two parts counts"
            ) from error


def merged_away(store: Store, batch_id: str) -> bool:
    """True when the rows of this batch are in another part by now, so that a part of this name is garbage.

    Not yet, while a record names it whose output does not stand: then the part is what the output is to be made of.
    """
    for entry in CompactionLog(store).read().entries:
        for merge in entry.record.merges:
            if any(batch_of_path(found.path) == batch_id for found in merge.inputs):
                return entry.done or store.stat(merge.output) is not None
    return False


def _inputs(entry: Entry) -> Iterator[Input]:
    for merge in entry.record.merges:
        yield from merge.inputs


def _record_path(number: int) -> str:
    return f"_compactions/{number:08d}.json"


def _mark_path(number: int) -> str:
    return f"_compactions/{number:08d}.done"


def _to_json(record: CompactionRecord) -> bytes:
    document = {"format": FORMAT} | asdict(record) | {"created_at": record.created_at.isoformat()}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _from_json(document: dict[str, Any]) -> CompactionRecord:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}")
    return CompactionRecord(
        nonce=document["nonce"],
        run=RunIdentity(**document["run"]),
        created_at=datetime.fromisoformat(document["created_at"]),
        kind=document["kind"],
        merges=tuple(
            Merge(
                merge["output"],
                tuple(
                    Input(found["path"], tuple(found["dropped"]), tuple(found["dropped_superseded"]))
                    for found in merge["inputs"]
                ),
            )
            for merge in document["merges"]
        ),
    )
