"""The model cache on this machine, and how a directory appears in it: whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from stt_engine.errors import UsageError

CACHE_VARIABLE = "NIGHTSCRIBE_CACHE_DIR"


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir`, else NIGHTSCRIBE_CACHE_DIR, else `nightscribe` in the user's cache directory (XDG). Not created."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser().absolute()
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "nightscribe"


def publish(target: Path, fill: Callable[[Path], None], *, resume: bool = False) -> Path:
    """The directory `target`, filled by `fill(partial)` if it is not there yet.

    Filled under another name and renamed, so that whoever sees `target` sees all of it; of several processes at
    once one does the work and the others wait for it. `resume` keeps what an interrupted fill has left.

    Raises UsageError where the place cannot be written; whatever `fill` raises.
    """
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            if target.exists():
                return target
            partial = target.parent / f".{target.name}.partial"
            if partial.exists() and not resume:
                shutil.rmtree(partial)
            partial.mkdir(exist_ok=True)
            fill(partial)
            partial.rename(target)
    except OSError as error:
        raise UsageError(
            f"cannot write the model directory {target}: {error.strerror or error}. "
            f"Free some space, or name another place: {CACHE_VARIABLE}=/path."
        ) from error
    return target
