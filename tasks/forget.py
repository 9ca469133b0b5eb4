"""Erasing one recording: its rows in every table, and whatever else below DEST names it.

    where is it? → is no run at work on it? → spool, reports, records, plans → rewrite the parts, as compaction does

The parts are swapped by a compaction's record of the kind "forget", whose dropped rows are remembered nowhere; so a
kill at any moment leaves what the next call, the next compaction or the next run ends. Nothing is kept of the
recording, not even that it was erased: if it is still in SOURCE the next run transcribes it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from stt_engine.errors import DestinationRefused, UsageError
from tasks.compact import finish_all, new_nonce, swap, upkeep_identity
from tasks.compact_log import Input, Merge
from tasks.compact_plan import is_known, live_plans, output_path
from tasks.forget_traces import Traces, erase_traces, find_traces
from tasks.land import repair_derived
from tasks.live_parts import SUPERSEDED, LiveParts, with_live_parts
from tasks.liveness import Heartbeat, beat
from tasks.parts import Part, PartVanished, list_parts, may_hold, path_in, read_parts, require_tables
from tasks.plan_log import OpenPlan
from tasks.spool import remove_spooled
from tasks.storage import Store, open_store

FLAT = ("segments", "words")
IN_SOURCE = "if the recording is still in SOURCE, delete it there: the next run would transcribe it again"


@dataclass(frozen=True, slots=True)
class Found:
    """Where a recording is, at this moment."""

    uri: str
    rows: Mapping[str, int]
    """Table -> rows."""
    inputs: tuple[Input, ...]
    """Parts that hold it."""
    file_ids: frozenset[str]
    traces: Traces
    live: LiveParts

    @property
    def is_anywhere(self) -> bool:
        return bool(self.inputs) or self.traces.certain > 0


@dataclass(frozen=True, slots=True)
class ForgetSummary:
    """The figures of `nightscribe forget --json`, under the same names."""

    uri: str
    dest: str
    transcripts: int = 0
    """Rows erased of this table, and so on."""
    segments: int = 0
    words: int = 0
    plans: int = 0
    run_records: int = 0
    reports: int = 0
    spooled: int = 0
    note: str = IN_SOURCE

    @property
    def line(self) -> str:
        return (
            f"erased {self.transcripts} rows of transcripts, {self.segments} of segments, {self.words} of words; "
            f"taken out of {self.plans} plans and {self.run_records} run records, {self.reports} reports deleted; "
            f"{self.note}"
        )


def forget_recording(uri: str, dest: str, *, spool: str | None = None) -> ForgetSummary:
    """`forget` for a DEST by its address. Raises DestinationRefused too where no tables are."""
    store = open_store(dest)
    require_tables(store)
    return forget(store, uri, spool=spool)


def forget(store: Store, uri: str, *, spool: str | None = None) -> ForgetSummary:
    """Erases everything of the recording whose source_uri is exactly this. Safe to call again.

    spool: what runs were given as --spool, if anything: what a killed run left there goes too.

    Raises UsageError when the URI is nowhere, or a run is working on it; DestinationRefused for a part that cannot be
    read or rewritten; StorageUnavailable, AccessDenied.
    """
    run = upkeep_identity("forget")
    rows: Counter[str] = Counter()
    with Heartbeat(store, run):
        finish_all(store)
        found = look_for(store, uri)
        if not found.is_anywhere:
            raise not_there(store, uri)
        _refuse_if_in_use(live_plans(store, beat(store, run)), uri)
        # The tables last: while they hold it, a call that follows a kill finds what it is to erase.
        spooled = remove_spooled(spool, found.file_ids | found.traces.file_ids)
        traces = found.traces
        erase_traces(store, traces, uri)
        while found.inputs:
            nonce = new_nonce()
            merges = tuple(
                Merge(output_path([part.path], found.live.log.highest + 1, at, nonce), (part,))
                for at, part in enumerate(found.inputs)
            )
            if swap(store, found.live.log, merges, run, "forget", nonce):
                rows.update(found.rows)
            else:
                finish_all(store)
            found = look_for(store, uri)
        _erase_orphans(store, uri)
        _refuse_if_in_use(live_plans(store, beat(store, run)), uri)  # one that began meanwhile
        erase_traces(store, found.traces, uri)
    store.sweep()
    return ForgetSummary(
        uri,
        store.uri,
        transcripts=rows["transcripts"],
        segments=rows["segments"],
        words=rows["words"],
        plans=len(traces.plans),
        run_records=len(traces.records),
        reports=len(traces.reports),
        spooled=spooled,
    )


def look_for(store: Store, uri: str) -> Found:
    """Changes nothing."""
    traces = find_traces(store, uri)
    return with_live_parts(store, lambda live: _look_for(store, uri, traces, live))


def not_there(store: Store, uri: str) -> UsageError:
    return UsageError(
        f"{uri} is nowhere in DEST {store.uri}: no source_uri is exactly this; it may be spelled otherwise, or be "
        "erased already"
    )


def _look_for(store: Store, uri: str, traces: Traces, live: LiveParts) -> Found:
    positions: dict[str, tuple[int, ...]] = {}
    remembered: dict[str, tuple[int, ...]] = {}
    file_ids: set[str] = set()
    for parts, into in ((live.transcripts, positions), (live.superseded, remembered)):
        wanted = partial(may_hold, column="source_uri", value=uri)
        for part, table in read_parts(store, parts, ("source_uri", "file_id"), wanted=wanted):
            pairs = zip(table["source_uri"].to_pylist(), table["file_id"].to_pylist(), strict=True)
            here = [(at, file_id) for at, (name, file_id) in enumerate(pairs) if name == uri]
            if not here:
                continue
            if not is_known(table):
                raise DestinationRefused(
                    f"{store.uri_of(part.stored.path)} was written by a newer version, and would lose columns if this "
                    "one rewrote it; upgrade, then forget"
                )
            into[part.path_in("transcripts")] = tuple(at for at, _ in here)
            file_ids.update(file_id for _, file_id in here)
    inputs = tuple(
        Input(path, positions.get(path, ()), remembered.get(path, ())) for path in sorted({*positions, *remembered})
    )
    rows = {"transcripts": sum(map(len, positions.values()))}
    for table_name in FLAT:
        rows[table_name] = sum(_count(store, path_in(table_name, path), uri) for path in positions)
    return Found(uri, rows, inputs, frozenset(file_ids), traces, live)


def _count(store: Store, path: str, uri: str) -> int:
    stored = store.stat(path)
    if stored is None:  # a crash in the middle of landing left it out
        return 0
    tables = read_parts(store, [Part(stored)], ("source_uri",))
    return sum(table["source_uri"].to_pylist().count(uri) for _, table in tables)


def _erase_orphans(store: Store, uri: str) -> None:
    """Rows of the flat tables for which there is none in the transcripts: a lander that was killed while its part was
    merged away may leave such. What is deleted too much is derived again."""
    deleted = 0
    wanted = partial(may_hold, column="source_uri", value=uri)
    for table in (*FLAT, SUPERSEDED):
        for part in list(list_parts(store, table)):
            try:
                tables = list(read_parts(store, [part], ("source_uri",), wanted=wanted))
            except PartVanished:
                continue
            if table == SUPERSEDED and store.stat(part.path_in("transcripts")) is not None:
                continue  # it is no orphan, and cannot be derived again
            if any(uri in found["source_uri"].to_pylist() for _, found in tables):
                store.delete(part.stored.path)
                deleted += 1
    if deleted:
        repair_derived(store)


def _refuse_if_in_use(plans: list[OpenPlan], uri: str) -> None:
    for plan in plans:
        if any(file.uri == uri for batch in plan.entry.batches for file in batch.files):
            raise UsageError(
                f"run {plan.entry.run.run_id} is working on {uri} and would land it again; wait until it has ended, or "
                "cancel it, then forget"
            )
