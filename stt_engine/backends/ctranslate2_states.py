"""Encoder states of a device batch in CTranslate2, in the shares that its replicas work on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import ctranslate2

STEP_ROWS = 32
"""A step of the decoder over n windows costs a core as much as n + 32 windows would by themselves: the weights are read
once for all. Measured on the fixture: 11 ms for 8 windows, 12 for 16, 15 for 32, 27 for 64."""


@dataclass(frozen=True, slots=True)
class Share:
    """The windows of a device batch that one replica works on."""

    states: States
    places: range
    """Of them in the batch."""


class States:
    """Encoder states where CTranslate2 left them, and a copy in host memory once windows are picked from them.

    Neither ctranslate2 nor numpy can gather rows on a GPU, so `select` copies the batch to the host once and hands the
    rows picked back as host memory, which CTranslate2 moves to its device (and precision) when it uses them. A large
    model's window is 3.8 MB: some hundredths of a second for a batch, against the second that encoding it again takes.
    """

    def __init__(self, storage: ctranslate2.StorageView) -> None:
        self.storage = storage

    @cached_property
    def on_host(self) -> npt.NDArray[Any]:
        import ctranslate2

        storage = self.storage
        if storage.device != "cpu":
            storage = storage.to_device(ctranslate2.Device.cpu)
        if storage.dtype == ctranslate2.DataType.bfloat16:  # which numpy has not
            storage = storage.to(ctranslate2.DataType.float32)
        return np.asarray(storage)

    @classmethod
    def from_rows(cls, rows: Sequence[npt.NDArray[Any]]) -> States:
        import ctranslate2

        return cls(ctranslate2.StorageView.from_array(np.stack(rows)))


def shared_out(lengths: Sequence[int], n_shares: int) -> list[range]:
    """The places of a batch in at most `n_shares` stretches that keep as many replicas busy for about as long.

    `lengths`: of the windows' audio, in any unit; a window's steps are taken to grow with it, and the windows of a
    share to step until the longest is done. Sorted by length, a few long ones weigh as much as many short ones.
    """
    n_shares = max(1, min(n_shares, len(lengths)))
    costs = sorted({length * (STEP_ROWS + rows) for length in lengths for rows in range(1, len(lengths) + 1)})
    place = bisect_left(costs, True, key=lambda most: _stretches(lengths, most, n_shares) is not None)
    return _stretches(lengths, costs[min(place, len(costs) - 1)], n_shares) or [range(len(lengths))]


def _stretches(lengths: Sequence[int], most: int, n_shares: int) -> list[range] | None:
    """Stretches that cost no more than `most` each, each as long as it may be; None where they would be too many."""
    found: list[range] = []
    start = longest = 0
    for place, length in enumerate(lengths):
        if place > start and max(longest, length) * (STEP_ROWS + place + 1 - start) > most:
            found.append(range(start, place))
            start, longest = place, 0
        longest = max(longest, length)
    found.append(range(start, len(lengths)))
    return found if len(found) <= n_shares else None
