"""Which units share the next device batch: recordings in turn, one unit each, as long as there is room.

A recording of three hours has one place in the round like a clip of eight seconds, so that the clip waits for one
device batch at most. Units that must not share a decoder call (other options, another backend) wait for the next round.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque

from stt_engine.server.recording import BatchKey, Recording, Unit
from stt_engine.types import Seconds


class Scheduler:
    """`wait_s`: how long a batch that is not full waits for recordings that are being split at the moment."""

    def __init__(self, *, wait_s: Seconds) -> None:
        self._wait_s = wait_s
        self._change = threading.Condition()
        self._round: deque[Recording] = deque()
        self._splitting: set[Recording] = set()
        self._idle_lanes = 0
        self._closed = False

    def begin(self, recording: Recording) -> None:
        """The recording is about to be split: its units come to this scheduler."""
        recording.offer = self._offered
        with self._change:
            self._splitting.add(recording)

    def split_ended(self, recording: Recording) -> None:
        with self._change:
            self._splitting.discard(recording)
            self._change.notify_all()

    def forget(self, recording: Recording) -> None:
        """Nobody waits for it any more: its place in the round is given up."""
        with self._change:
            recording.ready.clear()
            self._splitting.discard(recording)
            if recording in self._round:
                self._round.remove(recording)

    def take(self, max_windows: int) -> list[Unit]:
        """The units of the next device batch, at least one; none when the scheduler is closed."""
        with self._change:
            self._idle_lanes += 1
            try:
                while not self._closed:
                    if self._round and self._worth_waiting(max_windows):
                        self._wait_for_company(max_windows)
                    if self._round:
                        return self._gather(max_windows)
                    self._change.wait()
                return []
            finally:
                self._idle_lanes -= 1

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._change.notify_all()

    @property
    def waiting_chunks(self) -> int:
        with self._change:
            return sum(len(unit.positions) for recording in self._round for unit in recording.ready)

    def _offered(self, recording: Recording, units: list[Unit]) -> None:
        with self._change:
            if recording.abandoned:
                return
            recording.ready.extend(units)
            if recording.ready and recording not in self._round:
                self._round.append(recording)
            self._change.notify_all()

    def _windows(self, key: BatchKey) -> int:
        return sum(len(unit.positions) for r in self._round if r.key == key for unit in r.ready)

    def _worth_waiting(self, max_windows: int) -> bool:
        return bool(self._splitting) and self._windows(self._round[0].key) < max_windows * self._idle_lanes

    def _wait_for_company(self, max_windows: int) -> None:
        until_s = time.monotonic() + self._wait_s
        while not self._closed and self._round and self._worth_waiting(max_windows):
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not self._change.wait(left_s):
                return

    def _gather(self, max_windows: int) -> list[Unit]:
        key = self._round[0].key
        # What is there is shared out among the lanes that are idle, rather than all of it going to the first.
        room = min(max_windows, math.ceil(self._windows(key) / self._idle_lanes))
        units: list[Unit] = []
        while room > 0 and any(r.key == key for r in self._round):
            for recording in [r for r in self._round if r.key == key]:
                if room <= 0:
                    break
                unit = recording.ready.popleft()
                units.append(unit)
                room -= len(unit.positions)
                self._round.remove(recording)
                if recording.ready:
                    self._round.append(recording)
        return units
