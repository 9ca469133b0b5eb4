"""A short name for what a model knows: the hash of its weights."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from stt_engine.models.cache import cache_root
from stt_engine.models.layout import read_layout


def fingerprint(path: str | Path, *, cache_dir: str | Path | None = None) -> str:
    """16 hex digits of sha256 over the weight files of the model at `path`, in the order of their names.

    The same weights in another format hash differently. Remembered in the cache under path, size and time of
    modification: large-v3 is 3 GB, some seconds of hashing. Raises as `read_layout`.
    """
    weights = read_layout(Path(path)).weights
    stands = [(str(weight.resolve()), (stat := weight.stat()).st_size, stat.st_mtime_ns) for weight in weights]
    key = hashlib.sha256(repr(stands).encode()).hexdigest()[:32]
    note = cache_root(cache_dir) / "fingerprints" / key
    with contextlib.suppress(OSError):
        if len(remembered := note.read_text()) == 16:
            return remembered
    digest = hashlib.sha256()
    for weight in weights:
        with weight.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    result = digest.hexdigest()[:16]
    # A cache that cannot be written costs time only.
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        partial = note.with_name(f"{key}.{os.getpid()}")
        partial.write_text(result)
        partial.replace(note)
    return result
