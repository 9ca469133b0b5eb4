"""Which files share a split task: none in a run of a usual size, so that each has a task run of its own name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tasks.types import AudioFile

LARGEST_GROUP = 64


def split_groups(files: Sequence[AudioFile], *, alone_up_to: int, most_bytes: int) -> Iterator[tuple[AudioFile, ...]]:
    """Single files while there are at most `alone_up_to`; beyond, groups of a size that makes about so many of them.

    A group is closed before its files have more than `most_bytes` together, so that what is being split at once stays
    bounded; a larger file goes alone.
    """
    size = 1 if len(files) <= alone_up_to else min(LARGEST_GROUP, -(-len(files) // alone_up_to))
    group: list[AudioFile] = []
    group_bytes = 0
    for file in files:
        if group and (len(group) == size or group_bytes + file.size_bytes > most_bytes):
            yield tuple(group)
            group, group_bytes = [], 0
        group.append(file)
        group_bytes += file.size_bytes
    if group:
        yield tuple(group)
