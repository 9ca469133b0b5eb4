"""A mark of this process for the end of a name, and whether the process of such a mark is gone."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path

_MARK = re.compile(r"-([0-9a-f]{8})-(\d+)$")


def process_mark(pid: int | None = None) -> str:
    """`-PLACE-PID`. Process ids mean nothing on another host or in another container: PLACE tells."""
    return f"-{_place()}-{pid or os.getpid()}"


def owner_is_gone(name: str) -> bool:
    """True when the mark at the end of `name` is of a process of this place that is no more."""
    mark = _MARK.search(name)
    return mark is not None and mark[1] == _place() and not Path(f"/proc/{mark[2]}").exists()


def owner_lives(name: str) -> bool:
    """True when the mark is of a process of this place that is there (or of a later one with the same id)."""
    mark = _MARK.search(name)
    return mark is not None and mark[1] == _place() and Path(f"/proc/{mark[2]}").exists()


def _place() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()}/{namespace}".encode()).hexdigest()[:8]
