"""A contestant as a process, watched from outside: its memory with all its descendants, and its protocol.

A contestant loads, prints `loaded`, waits for a line on stdin, works, and prints a JSON object as its last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_LOOK_EVERY_S = 0.25


@dataclass(slots=True)
class Peaks:
    """Proportional set sizes: a page that two processes share counts half in each."""

    together_bytes: int = 0
    """The most that all processes held at one moment."""
    by_pid_bytes: dict[int, int] = field(default_factory=dict)
    """The most that each held; their moments may differ."""

    def look(self, root: int) -> None:
        sizes = {pid: proportional_bytes(pid) for pid in family(root)}
        self.together_bytes = max(self.together_bytes, sum(sizes.values()))
        for pid, size in sizes.items():
            self.by_pid_bytes[pid] = max(self.by_pid_bytes.get(pid, 0), size)


@dataclass(frozen=True, slots=True)
class Told:
    """What a contestant printed, and what was seen of it."""

    found: dict[str, Any]
    peaks: Peaks
    pid: int
    command_s: float
    """From its start to its end: interpreter, imports and the loading of the model included."""


@contextmanager
def watched(pid: int) -> Iterator[Peaks]:
    """The memory of a process and all its descendants, looked at every quarter of a second."""
    peaks, over = Peaks(), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY_S):
            peaks.look(pid)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        others = [
            child
            for task in Path(f"/proc/{pid}/task").iterdir()
            if task.name != str(pid)
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return [pid]
    return [pid, *(member for child in [*children, *others] for member in family(int(child)))]


def proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def turn(command: Sequence[str], told: object, environment: dict[str, str]) -> Told:
    """Raises SystemExit where the contestant fails."""
    began_s = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | environment | {"PYTHONPATH": str(HERE.parent)},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    with watched(process.pid) as peaks:
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
        while (line := process.stdout.readline()) and line.strip() != "loaded":
            pass
        if line:
            process.stdin.write("go\n")
        process.stdin.close()
        lines = process.stdout.read().splitlines()
        status = process.wait()
    if status != 0:
        raise SystemExit(f"{' '.join(command)}: exit status {status}")
    return Told(json.loads(lines[-1]), peaks, process.pid, time.perf_counter() - began_s)
