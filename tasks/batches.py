"""Which files share a part, and what the part is called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence, Set
from datetime import date

from tasks.types import AudioFile, LandingBatch

FILES_PER_BATCH = 100
SMALLEST_BATCH = 8
PARTS_PER_SMALL_RUN = 8
"""A run of fewer files than would fill this many batches gets smaller ones, so that rows land while it goes on."""
BATCH_BYTES = 1 << 30
"""Ten hours of compressed recordings land sooner than with a hundred others."""

Member = tuple[AudioFile, int]
"""A file and its generation."""


def batch_id(members: Iterable[Member], options_hash: str) -> str:
    """32 hex digits that depend on nothing but what goes in: uri, version and generation of each file, and the options.

    The order of the files does not matter. The hash is over JSON, in which no name can imitate the border between two.
    """
    inputs = sorted((file.uri, file.version, generation) for file, generation in members)
    canonical = json.dumps([options_hash, inputs], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def batch_size(n_files: int, files_per_batch: int = FILES_PER_BATCH) -> int:
    """Files in each batch of a run of `n_files`: `files_per_batch` from 8 such batches on, never under 8 files."""
    if files_per_batch < 1:
        raise ValueError(f"a batch holds at least one file, not {files_per_batch}")
    share = -(-n_files // PARTS_PER_SMALL_RUN)
    return min(files_per_batch, max(SMALLEST_BATCH, share))


def form_batches(
    members: Sequence[Member],
    *,
    options_hash: str,
    ingest_date: date,
    files_per_batch: int = FILES_PER_BATCH,
    batch_bytes: int = BATCH_BYTES,
    taken: Set[str] = frozenset(),
) -> tuple[LandingBatch, ...]:
    """Consecutive members grouped, in their order; each in exactly one batch.

    `taken`: names that have landed and are never given again. What is planned has no row under such a name, unless its
    rows were taken away (`nightscribe forget`, or a part moved out of DEST): then the generations are counted on.
    """
    size = batch_size(len(members), files_per_batch)
    groups: list[list[Member]] = []
    group_bytes = 0
    for member in members:
        if not groups or len(groups[-1]) >= size or group_bytes + member[0].size_bytes > batch_bytes:
            groups.append([])
            group_bytes = 0
        groups[-1].append(member)
        group_bytes += member[0].size_bytes
    return tuple(
        LandingBatch(
            name,
            ingest_date,
            options_hash,
            tuple(file for file, _ in group),
            tuple(generation for _, generation in named),
        )
        for group in groups
        for name, named in [_named(group, options_hash, taken)]
    )


def _named(group: list[Member], options_hash: str, taken: Set[str]) -> tuple[str, list[Member]]:
    while (name := batch_id(group, options_hash)) in taken:
        group = [(file, generation + 1) for file, generation in group]
    return name, group
