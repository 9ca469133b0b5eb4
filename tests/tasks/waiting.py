"""Waiting for what other processes do: a condition and a bound, never a fixed sleep."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def until(condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Returns when the condition holds; AssertionError when it does not in time."""
    give_up_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_s, f"not within {within_s:g} s"
        time.sleep(0.01)


def pid_in(path: Path, *, within_s: float = 30.0) -> int:
    """The process id that a body writes into a file once it runs."""
    until(path.exists, within_s=within_s)
    return int(path.read_text())


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie that nobody has reaped counts as ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before the open, and between the open and the read
        return True
    return state == "Z"
