"""A compaction as its own process, which says each change before it makes it; its parent kills it at one of them.

python -m tests.tasks.compact_run DEST TARGET_BYTES
"""

from __future__ import annotations

import sys

from tasks.compact import compact
from tasks.storage import open_store
from tests.tasks.compacting import WatchedStore


def main(dest: str, target_bytes: int) -> None:
    def say(what: str, path: str) -> None:
        if what in ("create", "replace", "delete"):
            print(what, path, flush=True)

    print("ready", flush=True)
    sys.stdin.readline()
    compact(WatchedStore(open_store(dest), say), target_bytes=target_bytes)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
