"""Windows in the batches that a device takes at once: of a kind, and half as many from the moment one did not fit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from stt_engine.backends.base import Backend
from stt_engine.errors import DeviceOutOfMemory
from stt_engine.lookahead import Lookahead
from stt_engine.second_looks import Window
from stt_engine.stage_times import StageTimes
from stt_engine.types import Seconds, TranscribeOptions
from stt_engine.windows import Encoded

log = logging.getLogger(__name__)

LONGEST_SHORT_S: Seconds = 20.0
"""A second look at a longer window, should it be wanted, costs more than the first one saves."""


class DeviceBatches:
    """Cuts and encodes batches of at most `most_windows`."""

    def __init__(self, backend: Backend, options: TranscribeOptions, times: StageTimes, most_windows: int) -> None:
        self.most_windows = most_windows
        self.lookahead = Lookahead(backend, times)
        self._backend, self._times = backend, times
        self._fit = options.window == "fit"

    def of(self, windows: Sequence[Window], *, ahead: bool = True) -> Iterator[Sequence[Window]]:
        """Windows with alike amounts of speech write alike numbers of tokens, so that none waits long for another;
        where the batch is cut to its longest window, alike lengths come together. `ahead`: the next batch may be
        encoded while one is heard."""

        def size(window: Window) -> float:
            speech_s = sum(region.duration_s for region in window.regions)
            return window.duration_s if self._fit or not speech_s else speech_s

        return self.fitting(sorted(windows, key=size, reverse=True), ahead=ahead and not self._fit)

    def fitting(self, windows: Sequence[Window], *, ahead: bool = False) -> Iterator[Sequence[Window]]:
        """Cut as it is asked for, by the size that fits by then, in the order given."""
        position = 0
        while position < len(windows):
            batch = windows[position : position + self.most_windows]
            position += len(batch)
            if ahead:
                self.lookahead.announce(batch, windows[position : position + self.most_windows])
            yield batch

    def is_short(self, batch: Sequence[Window]) -> bool:
        """Whether a short look at it is wanted, and would save anything."""
        return self._fit and max(window.duration_s for window in batch) <= LONGEST_SHORT_S

    def encode(self, batch: Sequence[Window], *, fit: bool = False) -> Encoded:
        """Raises DeviceOutOfMemory."""
        ahead = None if fit else self.lookahead.take(batch)
        return ahead or self._times.encode(self._backend, [window.samples for window in batch], fit=fit)

    def encode_halving(self, batch: Sequence[Window]) -> Iterator[tuple[Sequence[Window], Encoded]]:
        """The batch in as many parts as its memory asks for; `fit` where it is short."""
        for part in self.fitting(batch):
            try:
                encoded = self._times.encode(self._backend, [w.samples for w in part], fit=self.is_short(part))
                reason = ""
            except DeviceOutOfMemory as error:
                encoded, reason = None, str(error)
            # Not in the except block: the exception holds what had been put on the device by then.
            if encoded is None:
                self.halve(part, reason)
                yield from self.encode_halving(part)
            else:
                yield part, encoded

    def halve(self, batch: Sequence[Window], reason: str) -> None:
        """After a batch that did not fit: from now on, device batches hold half as many windows.

        Raises DeviceOutOfMemory where it was a single one.
        """
        self.lookahead.forget()
        self._backend.give_back()
        if len(batch) == 1:
            raise DeviceOutOfMemory(
                f"one window of {batch[0].duration_s:.0f} s does not fit into the memory of {self._backend.device}: "
                f"choose a smaller model or compute type, or free the device. {reason}"
            )
        self.most_windows = min(self.most_windows, len(batch) // 2)
        log.warning("%s; device batches now hold %d windows", reason, self.most_windows)
