"""How long a file says it is, so that what is missing from a truncated or corrupt one can be named.

FFmpeg hands back what it could decode and no error. Worse, its own figure follows the damage: it trusts a WAV's file
size over its header, drops an MP3's frame count when the file is shorter than it promises, and takes an Ogg's length
from the last page that is left. So those three are read here from the bytes; for the rest FFmpeg's figure is what the
container declares (FLAC STREAMINFO, MP4 moov, Matroska Info, AIFF COMM).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import av
import av.container

from stt_engine.audio_reader import AudioReader
from stt_engine.types import Seconds

_ESTIMATED_BY_FFMPEG = frozenset({"mp3", "aac", "ac3", "eac3", "dts", "mpeg", "mpegts", "amr", "loas", "gsm"})
"""Containers without a length of their own: FFmpeg divides the file's size by the bit rate."""

_HEAD_BYTES = 65_536
_LARGEST_OGG_PAGE_BYTES = 65_307


@dataclass(frozen=True, slots=True)
class DeclaredLength:
    duration_s: Seconds | None
    """None where the container promises nothing."""
    of_picture: bool = False
    """The figure is the whole container's, and the picture may run longer than the sound."""
    no_end_mark: bool = False
    """An Ogg stream without its end-of-stream page: cut short, nobody can say by how much."""

    @property
    def tolerance_s(self) -> Seconds:
        """What may be missing without a word: codecs' delays and rounding, or the picture's longer end."""
        declared_s = self.duration_s or 0.0
        return max(0.25, 0.1 * declared_s if self.of_picture else min(0.01 * declared_s, 2.0))


def declared_length(
    container: av.container.InputContainer, stream: av.AudioStream, reader: AudioReader
) -> DeclaredLength:
    """`duration_s` in seconds of the audio stream."""
    head = reader.peek_at(0, _HEAD_BYTES)
    by_ffmpeg = _ffmpeg_duration_s(container, stream)
    if head[:4] in (b"RIFF", b"RF64"):
        return DeclaredLength(_riff_duration_s(head, reader.size_bytes) or by_ffmpeg)
    names = container.format.name.split(",")
    if "mp3" in names:
        by_frames = _mp3_duration_s(reader, head)
        # FFmpeg takes the encoder's delay off the frame count, as long as it believes the count
        believed = by_frames is not None and by_ffmpeg is not None and abs(by_frames - by_ffmpeg) < 0.25
        return DeclaredLength(by_ffmpeg if believed else by_frames)
    if "ogg" in names:
        return DeclaredLength(by_ffmpeg, no_end_mark=bool(head) and not _ogg_ends(reader))
    if _ESTIMATED_BY_FFMPEG & set(names):
        return DeclaredLength(None)
    of_audio = stream.duration is not None or "DURATION" in stream.metadata
    return DeclaredLength(by_ffmpeg, of_picture=bool(container.streams.video) and not of_audio)


def _ffmpeg_duration_s(container: av.container.InputContainer, stream: av.AudioStream) -> Seconds | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    written = stream.metadata.get("DURATION", "").split(":")  # Matroska: 00:00:30.008000000
    if len(written) == 3:
        try:
            return int(written[0]) * 3600 + int(written[1]) * 60 + float(written[2])
        except ValueError:
            return None  # a tag that anyone may write
    return None if container.duration is None else container.duration / 1_000_000


def _riff_duration_s(head: bytes, size_bytes: int | None) -> Seconds | None:
    """Length by the data chunk's own size where the file is shorter than that; None where the two agree."""
    position, bytes_per_second, large_bytes = 12, 0, None
    while position + 8 <= len(head):
        tag, size = struct.unpack_from("<4sI", head, position)
        if tag == b"fmt " and position + 20 <= len(head):
            bytes_per_second = struct.unpack_from("<I", head, position + 16)[0]
        elif tag == b"ds64" and position + 24 <= len(head):
            large_bytes = struct.unpack_from("<Q", head, position + 16)[0]
        elif tag == b"data":
            claimed = large_bytes if size == 0xFFFFFFFF and large_bytes else size
            unknown = claimed == 0 or 0x7FFF_F000 <= claimed <= 0x8000_0000 or 0xFFFF_F000 <= claimed <= 0xFFFF_FFFF
            if unknown or not bytes_per_second or size_bytes is None or position + 8 + claimed <= size_bytes:
                return None  # recorders that stream write a placeholder and never come back
            return float(claimed / bytes_per_second)
        position += 8 + size + size % 2
    return None


def _ogg_ends(reader: AudioReader) -> bool:
    """Whether the last page bears the end-of-stream flag (RFC 3533, section 6)."""
    size_bytes = reader.size_bytes or 0
    tail = reader.peek_at(max(0, size_bytes - 2 * _LARGEST_OGG_PAGE_BYTES), 2 * _LARGEST_OGG_PAGE_BYTES)
    last = tail.rfind(b"OggS")
    return last >= 0 and last + 5 < len(tail) and bool(tail[last + 5] & 0x04)


_MP3_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _mp3_duration_s(reader: AudioReader, head: bytes) -> Seconds | None:
    """By the frame count of a Xing, Info or VBRI header (the LAME tag's specification); None where there is none."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        start = 10 + ((head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127)
    frame = reader.peek_at(start, 4096)
    for at in range(max(0, len(frame) - 200)):
        if frame[at] != 0xFF or frame[at + 1] & 0xE6 != 0xE2:  # sync, layer III
            continue
        version, rate_index = (frame[at + 1] >> 3) & 3, (frame[at + 2] >> 2) & 3
        if version == 1 or rate_index == 3:
            continue
        mono = frame[at + 3] >> 6 == 3
        side_bytes = (17 if mono else 32) if version == 3 else (9 if mono else 17)
        rate_hz = _MP3_RATES_HZ[version][rate_index]
        samples_a_frame = 1152 if version == 3 else 576
        xing, vbri = at + 4 + side_bytes, at + 36
        if frame[xing : xing + 4] in (b"Xing", b"Info") and frame[xing + 7] & 1:
            n_frames = struct.unpack_from(">I", frame, xing + 8)[0]
        elif frame[vbri : vbri + 4] == b"VBRI":
            n_frames = struct.unpack_from(">I", frame, vbri + 14)[0]
        else:
            return None
        return float(n_frames * samples_a_frame / rate_hz) or None
    return None
