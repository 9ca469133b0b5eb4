"""Where in time a decoder stands, and what of the file it did not get: holes, packets that failed, a missing end.

A hole is filled with silence, so that what follows keeps its time; this tells how long each is, and in the end how
many seconds a reader of the transcript does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av

from stt_engine.declared import DeclaredLength
from stt_engine.types import Seconds

_HOLE_S = 0.25
"""A jump of the time stamps below this is a rounding or a drifting clock, not a hole."""
_LONGEST_PAUSE_S = 1.0
"""Senders that transmit only while someone speaks (Opus DTX) still send every 0.4 s; a longer hole is a loss."""
_LONGEST_UNDECLARED_HOLE_S = 600.0
"""Where no length is declared, a larger jump is a broken time stamp."""


class Continuity:
    """Counts along while packets are decoded. Bare streams (`mp3`, `aac`) have no time stamps of their own: there a
    hole is as long as its bytes would last at the rate of those that decoded."""

    def __init__(self, declared: DeclaredLength, *, start_s: Fraction, container: str, size_bytes: int | None) -> None:
        self.position_s: Seconds = 0.0
        """Decoded and filled so far."""
        self.n_failed = 0
        """Packets that would not decode."""
        self._declared, self._start_s = declared, start_s
        self._bare = container in ("mp3", "aac")
        # FFmpeg's ADTS parser drops what is no frame without a word; the one for MP3 hands it on, to fail
        self._unread_bytes = size_bytes or 0 if container == "aac" else 0
        self._lost_s: Seconds = 0.0
        self._good_bytes = 0
        self._failed_since_frame = False

    def heard_of(self, packet: av.Packet[av.AudioStream]) -> None:
        self._unread_bytes = max(0, self._unread_bytes - packet.size)

    def decoded(self, packet: av.Packet[av.AudioStream]) -> None:
        self._good_bytes += packet.size

    def failed(self, packet: av.Packet[av.AudioStream] | None = None) -> Seconds:
        """A packet would not decode; the silence to put in its place, 0 where time stamps will show the hole."""
        self.n_failed += 1
        self._failed_since_frame = True
        if packet is None or not self._bare:
            return 0.0
        return min(self._lasting_s(packet.size), _LONGEST_UNDECLARED_HOLE_S)

    def hole_before(self, frame: av.AudioFrame) -> tuple[Seconds, bool]:
        """Seconds of silence between what came before and this frame, and whether they are a loss or just a pause."""
        lost, self._failed_since_frame = self._failed_since_frame, False
        if frame.pts is None or frame.time_base is None:
            return 0.0, False
        hole_s = float(frame.pts * frame.time_base - self._start_s) - self.position_s
        declared_s = self._declared.duration_s
        longest_s = _LONGEST_UNDECLARED_HOLE_S if declared_s is None else declared_s - self.position_s
        if not _HOLE_S < hole_s <= longest_s:
            return 0.0, False
        return hole_s, lost or hole_s > _LONGEST_PAUSE_S

    def advance(self, by_s: Seconds, *, lost: bool = False) -> None:
        self.position_s += by_s
        self._lost_s += by_s if lost else 0.0

    @property
    def nothing_came(self) -> bool:
        """Of a file that is not just empty sound."""
        promised = bool(self._declared.duration_s) or self._declared.no_end_mark
        return self.position_s == 0.0 and (self.n_failed > 0 or promised)

    def warnings(self) -> Iterator[str]:
        """At the end of the file."""
        declared_s = self._declared.duration_s
        if declared_s is None:
            missing_s, of_all = self._lost_s + self._lasting_s(self._unread_bytes), ""
        else:
            missing_s, of_all = declared_s - (self.position_s - self._lost_s), f" of {declared_s:.1f} s"
        if missing_s > self._declared.tolerance_s:
            yield f"{missing_s:.1f} s{of_all} are missing: the file is truncated or damaged"
        if self._declared.no_end_mark:
            yield "the file ends without its end mark: it was cut short, nobody can say by how much"

    def _lasting_s(self, n_bytes: int) -> Seconds:
        if not self._good_bytes:
            return 0.0
        return n_bytes * (self.position_s - self._lost_s) / self._good_bytes
