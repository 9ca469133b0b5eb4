"""What recordings are called, for whoever walks a folder or lists a bucket."""

from __future__ import annotations

AUDIO_SUFFIXES = (
    "3gp", "aac", "aif", "aiff", "al", "alaw", "amr", "au", "avi", "caf", "flac", "flv", "gsm", "m4a", "m4b",
    "mka", "mkv", "mov", "mp2", "mp3", "mp4", "mpeg", "mpga", "mts", "mulaw", "mxf", "oga", "ogg", "opus",
    "ra", "sph", "spx", "ts", "ul", "ulaw", "vob", "wav", "wave", "weba", "webm", "wma", "wmv", "wv",
)  # fmt: skip
