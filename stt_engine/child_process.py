"""What every child process of ours does first, and how its end is put into words. Used by the flow's workers and by
those of the service.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import IO, NoReturn

ORPHANED = 70
"""Exit status of a child that found its parent gone."""
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
"""Faults of the code that ran in it; any other signal came from somebody."""


def claim_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Keeps stdin and stdout for frames alone: what bodies and libraries print goes to stderr."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def end_with_parent(parent_pid: int) -> None:
    """Asks Linux to kill this process when the thread that started it ends, as it does with its process.

    The pipe tells the same everywhere, but only once the child's threads get to run Python, which a native call
    that holds the interpreter's lock puts off; this does not wait.
    """
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.name == "posix" and os.getppid() != parent_pid:
        os._exit(ORPHANED)  # gone before we asked


def leave_no_core_files() -> None:
    """A crash is one file's failure, not gigabytes of model on the disk."""
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def go_before_the_parent() -> None:
    """When the machine's memory runs out the kernel takes a child, which is replaced, and not the whole."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("500")


def leave(status: int) -> NoReturn:
    """Skips the interpreter's teardown, in which native libraries with live threads are known to crash."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)


def explained(status: int | None) -> str:
    """An exit status in words: "exit code 3", "killed by SIGSEGV"."""
    if status is None:
        return "it was never started"
    if status >= 0:
        return f"exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (the kernel does that when memory runs out)" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"


def resident_bytes_of(pid: int) -> int | None:
    """Memory it holds; None where there is no /proc, or no such process any more."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None
