"""Finished files' samples leave the spool while the night goes on.

On a disk that is nothing; in a store each deletion is a request, and a dispatcher that waited for them could feed two
GPUs and no more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec

from tasks.types import SpooledChunk

log = logging.getLogger(__name__)

REQUESTS_AT_ONCE = 16
"""At 30 ms each, 500 files a second."""


class SpoolDiscards:
    """Call it with the chunks of a finished file to free its samples; what cannot be freed goes with the spool.

    A remote spool is asked from threads of its own, so the call returns at once.
    """

    def __init__(self, spool_uri: str) -> None:
        self._threads = ThreadPoolExecutor(REQUESTS_AT_ONCE, "discard") if "://" in spool_uri else None
        self._closed = False

    def __call__(self, chunks: Sequence[SpooledChunk]) -> None:
        if not chunks or self._closed:
            return
        target = chunks[0].spool_uri
        if self._threads is not None:
            self._threads.submit(_remove, target)
        else:
            _remove(target)

    def close(self) -> None:
        """Returns when no deletion is on its way; those that had not begun are left to the spool's own removal, as
        is whatever is finished from now on."""
        self._closed = True
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)


def _remove(target: str) -> None:
    try:
        if "://" in target:
            filesystem, path = fsspec.core.url_to_fs(target)
            filesystem.rm_file(path)
        else:
            Path(target).unlink()
    except FileNotFoundError:
        pass  # a silent file has none, and an order that came twice frees it twice
    except Exception as error:  # noqa: BLE001 - every file system raises its own kind, and no file fails by this
        log.warning("%s is left behind for now: %s", target, error)
