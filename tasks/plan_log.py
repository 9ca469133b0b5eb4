"""Who works on what: an append-only log of plans in DEST, each entry created exclusively under the next number.

    _plans/00000007.json    what a run has claimed; never changed after
    _plans/00000007.done    its run will land no more of it

Creating the next number is a compare-and-set on the whole log: it succeeds only for a planner that has seen every
entry before it. So no lease is needed, and no two planners can claim the same (uri, version, options_hash) at once.

A batch keeps its name until it is known that nobody can land it any more:
- it HAS landed: files that it lacks (they failed retryably) may be planned under another name;
- its run marked the plan done and did not list it as unsettled: so does every file of it;
- otherwise, whatever became of the run, those who take its files up adopt the batch whole: same name, same members,
  same date. A run taken for dead that lands after all then meets the exclusive create of that same name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from stt_engine.errors import DestinationRefused
from tasks.liveness import RunIdentity
from tasks.newer import refuse_newer
from tasks.storage import NotStored, Store, Stored
from tasks.types import AudioFile, LandingBatch, NightPlan

FORMAT = 1
KEEP_DONE = timedelta(days=7)
_NAME = re.compile(r"_plans/(\d{8,})\.(json|done)")


@dataclass(frozen=True, slots=True)
class Adoption:
    """Batches taken over from another entry."""

    plan_number: int
    batch_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanEntry:
    plan_id: str
    run: RunIdentity
    created_at: datetime
    options_hash: str
    batches: tuple[LandingBatch, ...]
    adopts: tuple[Adoption, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """An entry that still matters: not done, or done with batches of which nobody knows whether they landed."""

    number: int
    entry: PlanEntry
    done: bool
    unsettled: frozenset[str]
    """Batches that may yet land under their name: all of a plan that is not done."""


@dataclass(frozen=True, slots=True)
class LogState:
    highest: int
    open_plans: tuple[OpenPlan, ...]


class PlanLog:
    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> LogState:
        """Everything that still matters. Read it BEFORE the ledger: what is done here is landed there by then."""
        entries, marks = self._names()
        open_plans = []
        for number in sorted(entries):
            mark = marks.get(number)
            if mark is None or mark.size_bytes > 0:
                plan = self._open_plan(number, marked=mark is not None)
                if plan is not None:
                    open_plans.append(plan)
        return LogState(max(entries, default=0), tuple(open_plans))

    def entries_from(self, number: int) -> Iterator[tuple[int, PlanEntry]]:
        """Entries of this number and above, done or not: what came between reading the log and writing to it."""
        entries, _ = self._names()
        for found in sorted(entries):
            if found >= number:
                entry = self.entry(found)
                if entry is not None:
                    yield found, entry

    def entry(self, number: int) -> PlanEntry | None:
        """None for one that was pruned. Raises DestinationRefused naming an entry that cannot be read."""
        try:
            payload = self._store.read(_entry_path(number))
        except NotStored:
            return None
        try:
            document = json.loads(payload)
            refuse_newer(self._store.uri_of(_entry_path(number)), "format", document["format"], FORMAT)
            return _from_json(document)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DestinationRefused(
                f"{self._store.uri_of(_entry_path(number))} is no readable plan ({type(error).__name__}); restore it, "
                "or delete it when no other run is at work"
            ) from error

    def append(self, number: int, entry: PlanEntry) -> bool:
        """False when another planner took this number."""
        if self._store.create_exclusive(_entry_path(number), _to_json(entry)):
            return True
        # A request that timed out after it had succeeded is repeated and finds itself.
        winner = self.entry(number)
        return winner is not None and winner.plan_id == entry.plan_id

    def mark_done(self, number: int, unsettled: Collection[str] = ()) -> None:
        payload = json.dumps({"unsettled": sorted(unsettled)}).encode() if unsettled else b""
        self._store.replace(_mark_path(number), payload)

    def all_entries(self) -> Iterator[tuple[int, PlanEntry]]:
        return self.entries_from(0)

    def without(self, number: int, uri: str) -> None:
        """Takes a recording out of an entry whose run is over. Its batches keep their names; one that had no other
        member goes, since nobody is to land it any more. The one change that is ever made to an entry."""
        entry, mark = self.entry(number), self._store.stat(_mark_path(number))
        if entry is None:
            return
        batches = tuple(_without(batch, uri) for batch in entry.batches)
        kept = tuple(batch for batch in batches if batch.files)
        self._store.replace(_entry_path(number), _to_json(replace(entry, batches=kept)))
        if mark is None:
            return
        if self._store.stat(_mark_path(number)) is None:  # pruned meanwhile: an entry without its mark would be open
            self._store.delete(_entry_path(number))
        elif mark.size_bytes:
            gone = {batch.batch_id for batch in batches if not batch.files}
            self.mark_done(number, self._unsettled(number) - gone)

    def prune(self, store_now: datetime) -> None:
        """Deletes entries that were settled a week ago, except the highest, whose number the next one counts from."""
        entries, marks = self._names()
        highest = max(entries, default=0)
        for number, mark in marks.items():
            if number != highest and mark.size_bytes == 0 and mark.modified_at < store_now - KEEP_DONE:
                self._store.delete(_entry_path(number))  # first: an entry without its mark would be open again
                self._store.delete(_mark_path(number))

    def _names(self) -> tuple[set[int], dict[int, Stored]]:
        entries, marks = set(), {}
        for stored in self._store.list("_plans"):
            name = _NAME.fullmatch(stored.path)
            if name and name[2] == "json":
                entries.add(int(name[1]))
            elif name:
                marks[int(name[1])] = stored
        return entries, marks

    def _open_plan(self, number: int, *, marked: bool) -> OpenPlan | None:
        entry = self.entry(number)
        if entry is None:
            return None
        unsettled = frozenset(batch.batch_id for batch in entry.batches)
        if marked:
            try:
                unsettled = self._unsettled(number)
            except NotStored:
                return None
        return OpenPlan(number, entry, marked, unsettled)

    def _unsettled(self, number: int) -> frozenset[str]:
        payload = self._store.read(_mark_path(number))
        if not payload:
            return frozenset()
        try:
            return frozenset(str(batch_id) for batch_id in json.loads(payload)["unsettled"])
        except (ValueError, KeyError, TypeError) as error:
            raise DestinationRefused(
                f"{self._store.uri_of(_mark_path(number))} is no readable mark of a plan ({type(error).__name__}); "
                "delete it: the next run then finds out by itself what of that plan has landed"
            ) from error


def _without(batch: LandingBatch, uri: str) -> LandingBatch:
    left = [pair for pair in zip(batch.files, batch.generations, strict=True) if pair[0].uri != uri]
    return replace(
        batch, files=tuple(file for file, _ in left), generations=tuple(generation for _, generation in left)
    )


def mark_done(store: Store, plan: NightPlan, *, unsettled: Collection[str] = ()) -> None:
    """Says that this plan's run will land no more of it. Call it when no landing call is running any more.

    `unsettled`: batch ids whose `land_batch` was called and raised, so that nobody knows whether the part was created.
    """
    if plan.plan_id:
        PlanLog(store).mark_done(plan_number(plan.plan_id), unsettled)


def plan_number(plan_id: str) -> int:
    return int(plan_id.partition("-")[0])


def _entry_path(number: int) -> str:
    return f"_plans/{number:08d}.json"


def _mark_path(number: int) -> str:
    return f"_plans/{number:08d}.done"


def _to_json(entry: PlanEntry) -> bytes:
    document = {
        "format": FORMAT,
        "plan_id": entry.plan_id,
        "run": asdict(entry.run),
        "created_at": entry.created_at.isoformat(),
        "options_hash": entry.options_hash,
        "adopts": [[adoption.plan_number, list(adoption.batch_ids)] for adoption in entry.adopts],
        "batches": [_batch_to_json(batch) for batch in entry.batches],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _batch_to_json(batch: LandingBatch) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "ingest_date": batch.ingest_date.isoformat(),
        "columns": ["uri", "key", "etag", "size_bytes", "modified_at", "generation"],
        "files": [
            [file.uri, file.key, file.etag, file.size_bytes, file.modified_at.isoformat(), generation]
            for file, generation in zip(batch.files, batch.generations, strict=True)
        ],
    }


def _from_json(document: dict[str, Any]) -> PlanEntry:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}")
    options_hash = document["options_hash"]
    return PlanEntry(
        plan_id=document["plan_id"],
        run=RunIdentity(**document["run"]),
        created_at=datetime.fromisoformat(document["created_at"]),
        options_hash=options_hash,
        batches=tuple(_batch_from_json(batch, options_hash) for batch in document["batches"]),
        adopts=tuple(Adoption(number, tuple(batch_ids)) for number, batch_ids in document["adopts"]),
    )


def _batch_from_json(document: dict[str, Any], options_hash: str) -> LandingBatch:
    files = tuple(
        AudioFile(uri, key, etag, size_bytes, datetime.fromisoformat(modified_at))
        for uri, key, etag, size_bytes, modified_at, _ in document["files"]
    )
    generations = tuple(int(row[5]) for row in document["files"])
    ingest_date = date.fromisoformat(document["ingest_date"])
    return LandingBatch(document["batch_id"], ingest_date, options_hash, files, generations)
