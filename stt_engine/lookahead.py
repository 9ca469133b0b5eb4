"""The next device batch, on its way while this one is heard, so that a GPU does not wait for the host.

Its samples travel as soon as this batch is begun; it is encoded as soon as this one's tokens are written, while the
host makes texts of them. At most one batch is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

from stt_engine.backends.base import Backend
from stt_engine.errors import DeviceOutOfMemory
from stt_engine.second_looks import Window
from stt_engine.stage_times import StageTimes
from stt_engine.windows import Encoded


class Lookahead:
    def __init__(self, backend: Backend, times: StageTimes) -> None:
        self._backend, self._times = backend, times
        self._coming: Sequence[Window] = ()
        self._ahead: tuple[Sequence[Window], Encoded] | None = None

    def announce(self, batch: Sequence[Window], coming: Sequence[Window]) -> None:
        """`batch` is wanted now, and `coming` is likely to be next."""
        if not self._holds(batch):
            self._backend.stage([window.samples for window in batch])
        if coming:
            self._backend.stage([window.samples for window in coming])
        self._coming = coming

    def encode_coming(self) -> None:
        """To be called when the device has written the tokens of the batch before."""
        coming, self._coming = self._coming, ()
        if not coming or not self._backend.encodes_ahead:
            return
        self._ahead = None
        try:
            self._ahead = (coming, self._times.encode(self._backend, [window.samples for window in coming]))
        except DeviceOutOfMemory:
            return  # its turn comes, with less beside it on the device

    def take(self, batch: Sequence[Window]) -> Encoded | None:
        """The states of `batch` if they are here; whatever was ahead is let go."""
        found = self._ahead[1] if self._ahead is not None and self._holds(batch) else None
        self._ahead = None
        return found

    def _holds(self, batch: Sequence[Window]) -> bool:
        held = self._ahead[0] if self._ahead is not None else ()
        return len(batch) == len(held) and all(a is b for a, b in zip(batch, held, strict=True))

    def forget(self) -> None:
        """Where memory is short, nothing is kept for later."""
        self._coming, self._ahead = (), None
