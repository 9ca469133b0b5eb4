"""What a compaction would do: which rows a newer one has superseded, and which parts become one.

A part is taken up when it is less than half of the size aimed at and has company, or when it holds superseded rows.
Left alone are the parts of live runs, which may still try to land them, and those with columns of a newer Nightscribe.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from tasks.compact_log import Input, Merge
from tasks.compact_merge import DERIVED
from tasks.live_parts import LiveParts
from tasks.liveness import is_alive
from tasks.parts import Part, list_parts, read_columns
from tasks.plan_log import OpenPlan, PlanLog
from tasks.schema import TRANSCRIPTS
from tasks.storage import Store

NEWEST = ("source_uri", "transcribed_at", "batch_id", "source_version")
"""Which row of a recording is the newest: what the views in deployments/sql look at, in this order, too."""


@dataclass(frozen=True, slots=True)
class CompactionPlan:
    live: LiveParts
    nonce: str
    merges: tuple[Merge, ...]
    rows: int
    superseded: int
    """Rows of the parts that may be taken up which a newer row of the same recording supersedes."""
    held: int
    """Parts left alone: of live runs, or with columns of a newer version."""


def plan_merges(store: Store, live: LiveParts, *, target_bytes: int, nonce: str, store_now: datetime) -> CompactionPlan:
    """Raises PartVanished: call it through `with_live_parts`."""
    parts = live.transcripts
    tables = list(read_columns(store, parts, NEWEST))
    # After the parts were listed: a part whose plan is not here yet was not there either.
    held = held_batches(live_plans(store, store_now))
    free = [
        at for at, (part, table) in enumerate(zip(parts, tables, strict=True))
        if part.batch_id not in held and is_known(table)
    ]  # fmt: skip
    superseded = superseded_rows(tables)
    sizes = _sizes(store, parts)
    chosen = _candidates(free, superseded, sizes, target_bytes)
    groups = _grouped(chosen, superseded, sizes, target_bytes)
    merges = tuple(
        Merge(
            output_path([parts[at].stored.path for at in group], live.log.highest + 1, position, nonce),
            tuple(Input(parts[at].stored.path, superseded.get(at, ())) for at in group),
        )
        for position, group in enumerate(groups)
    )
    n_superseded = sum(len(superseded.get(at, ())) for at in free)
    return CompactionPlan(
        live, nonce, merges, sum(table.num_rows for table in tables), n_superseded, len(parts) - len(free)
    )


def live_plans(store: Store, store_now: datetime) -> list[OpenPlan]:
    """Plans of runs that are at work."""
    alive: dict[str, bool] = {}
    found = []
    for plan in PlanLog(store).read().open_plans:
        owner = plan.entry.run
        if not plan.done and owner.run_id not in alive:
            alive[owner.run_id] = is_alive(store, owner, store_now=store_now)
        if not plan.done and alive[owner.run_id]:
            found.append(plan)
    return found


def held_batches(plans: Sequence[OpenPlan]) -> Set[str]:
    return {batch.batch_id for plan in plans for batch in plan.entry.batches}


def is_known(part: pa.Table) -> bool:
    """False for a part with columns that this version would lose."""
    columns = json.loads((part.schema.metadata or {}).get(b"nightscribe.columns", b"{}"))
    return set(columns) <= set(TRANSCRIPTS.names)


def superseded_rows(tables: Sequence[pa.Table]) -> Mapping[int, tuple[int, ...]]:
    """Number of the part -> positions of its rows for which a newer row stands, in this part or another."""
    if not tables:
        return {}
    places = [
        table.select(list(NEWEST))
        .replace_schema_metadata(None)
        .append_column("part", pa.array([at] * table.num_rows, pa.int64()))
        .append_column("row", pa.array(range(table.num_rows), pa.int64()))
        for at, table in enumerate(tables)
    ]
    rows = pa.concat_tables(places)
    newest_first = [(name, "ascending" if name == "source_uri" else "descending") for name in (*NEWEST, "part", "row")]
    rows = rows.select(["source_uri", "part", "row"]).take(pc.sort_indices(rows, sort_keys=newest_first))
    uris = rows["source_uri"].combine_chunks()
    again = pc.equal(uris[1:], uris[:-1])
    older = rows.slice(1).filter(again)
    found: defaultdict[int, list[int]] = defaultdict(list)
    for part, row in zip(older["part"].to_pylist(), older["row"].to_pylist(), strict=True):
        found[part].append(row)
    return {part: tuple(sorted(positions)) for part, positions in found.items()}


def output_path(inputs: Sequence[str], number: int, position: int, nonce: str) -> str:
    """In the youngest partition of its inputs, and sorting behind them there: a reader whose listing is in order, and
    misses the output, passed the inputs before they were deleted. Batches are named in hex digits, below `m`."""
    partition = max(PurePosixPath(path).parent for path in inputs)
    return f"{partition}/merged-{number:08d}-{position:04d}-{nonce}.parquet"


def _sizes(store: Store, parts: Sequence[Part]) -> Sequence[int]:
    """Of each part the size in the table in which it is largest, so that none outgrows the size aimed at."""
    others = {part.stored.path: part.stored.size_bytes for table in DERIVED for part in list_parts(store, table)}
    return [max(part.stored.size_bytes, *(others.get(part.path_in(table), 0) for table in DERIVED)) for part in parts]


def _candidates(
    free: Sequence[int], superseded: Mapping[int, tuple[int, ...]], sizes: Sequence[int], target_bytes: int
) -> Sequence[int]:
    return [at for at in free if at in superseded or sizes[at] < target_bytes / 2]


def _grouped(
    chosen: Sequence[int], superseded: Mapping[int, tuple[int, ...]], sizes: Sequence[int], target_bytes: int
) -> list[list[int]]:
    """Neighbours in the order of their dates, as many as the size aimed at has room for."""
    groups: list[list[int]] = []
    size = 0
    for at in chosen:
        if not groups or size + sizes[at] > target_bytes:
            groups.append([])
            size = 0
        groups[-1].append(at)
        size += sizes[at]
    return [group for group in groups if len(group) > 1 or any(at in superseded for at in group)]
