"""Encoder states of a device batch in CTranslate2, in the shares that its replicas work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import ctranslate2


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
