"""Which files share a split task: none in a run of a usual size, so that each has a task run of its own name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tasks.types import AudioFile

LARGEST_GROUP = 64
FEWEST_GROUPS = 24
"""Enough to keep every CPU worker in work and the first chunks soon; a task run costs Prefect's server 20 to 44 ms."""
SMALL_GROUP_BYTES = 16 * 2**20
"""Some seconds of a CPU worker's time."""


def split_groups(files: Sequence[AudioFile], *, alone_up_to: int, most_bytes: int) -> Iterator[tuple[AudioFile, ...]]:
    """Single files while there are at most `alone_up_to`; beyond, about so many groups, or fewer of small files.

    A group is closed before its files have more than `most_bytes` together, so that what is being split at once stays
    bounded; a larger file goes alone.
    """
    least, most = group_sizes(len(files), alone_up_to=alone_up_to)
    group: list[AudioFile] = []
    group_bytes = 0
    for file in files:
        with_it = group_bytes + file.size_bytes
        enough = len(group) >= least and (len(group) == most or with_it > SMALL_GROUP_BYTES)
        if group and (enough or with_it > most_bytes):
            yield tuple(group)
            group, group_bytes = [], 0
        group.append(file)
        group_bytes += file.size_bytes
    if group:
        yield tuple(group)


def group_sizes(n_files: int, *, alone_up_to: int) -> tuple[int, int]:
    """How many files a group has at least, if they may be so many, and how many at most, if they are small."""
    if n_files <= alone_up_to:
        return 1, 1
    least = min(LARGEST_GROUP, -(-n_files // alone_up_to))
    return least, max(least, min(LARGEST_GROUP, -(-n_files // FEWEST_GROUPS)))
