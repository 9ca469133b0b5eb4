"""Which parts count at this moment, for those who read the tables while a compaction may be swapping parts.

    read the log of compactions → list the parts → drop what is replaced → read → may a newer record have torn the list?
              ↑                                                                      │ yes, or a part has vanished
              └──────────────────────────────────────────────────────────────────────┘

An output is created before its inputs go, so of the two at least one is there at any time; a listing takes time,
though, and may have passed the output's place before it was created and come to the inputs' after they were deleted.
The log tells: a record is there before anything of it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from stt_engine.errors import StorageUnavailable
from tasks.compact_log import CompactionLog, CompactionState, Merge
from tasks.parts import Part, PartVanished, batch_of_path, list_parts
from tasks.storage import Store

TRIES = 20
SUPERSEDED = "_superseded"
"""Below DEST: which (uri, version, options) had rows that compaction dropped. Parts named as their transcripts."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class LiveParts:
    transcripts: Sequence[Part]
    superseded: Sequence[Part]
    """Those that belong to one of `transcripts`."""
    log: CompactionState
    """As it was before the parts were listed."""

    @property
    def landed_batches(self) -> Set[str]:
        """Names that nobody is to land (again)."""
        return {part.batch_id for part in self.transcripts} | self.log.input_names


def with_live_parts(store: Store, read: Callable[[LiveParts], Answer]) -> Answer:
    """What `read` returns for parts that hold each landed row exactly once, all of them read. It may be called again.

    Raises what `read` raises, other than PartVanished; StorageUnavailable when parts keep vanishing.
    """
    log = CompactionLog(store)
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(1.0, 0.01 * 2**attempt))
        live = _live_parts(store, log.read())
        if live is None:
            continue
        try:
            answer = read(live)
        except PartVanished:
            continue
        if log.highest() == live.log.highest or _untouched(live, log.read()):
            return answer
    raise StorageUnavailable(f"DEST {store.uri}: parts vanish faster than they can be read; try again later")


def _live_parts(store: Store, state: CompactionState) -> LiveParts | None:
    """None where the listing is torn. The order matters: `_superseded` is listed before any transcripts are read, and
    compaction deletes its parts after those of the transcripts, so that one that is missing here is missed there."""
    parts = {part.stored.path: part for part in list_parts(store, "transcripts")}
    for entry in state.entries:
        for merge in entry.record.merges:
            if not entry.done and merge.output not in parts:
                if _torn(store, merge, parts):
                    return None
                continue
            for found in merge.inputs:
                parts.pop(found.path, None)
    names = {batch_of_path(path) for path in parts}
    remembered = [part for part in list_parts(store, SUPERSEDED) if part.batch_id in names]
    return LiveParts(list(parts.values()), remembered, state)


def _untouched(live: LiveParts, now: CompactionState) -> bool:
    """True when every record that came since we looked takes parts that we have read, and makes none of them: then
    none of its steps was seen. So readers of a large DEST come to an end beside a compaction of many records."""
    known = {part.stored.path for part in live.transcripts}
    for entry in now.entries:
        if entry.number <= live.log.highest:
            continue
        for merge in entry.record.merges:
            if merge.output in known or any(found.path not in known for found in merge.inputs):
                return False
        known |= {merge.output for merge in entry.record.merges}
    return now.highest >= live.log.highest


def _torn(store: Store, merge: Merge, parts: dict[str, Part]) -> bool:
    """An input may also be missing because a person moved it away: then there is no output either."""
    return any(found.path not in parts for found in merge.inputs) and store.stat(merge.output) is not None
