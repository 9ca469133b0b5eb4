"""Bytes for the decoder: one reader over a file or an open stream, which remembers what went wrong underneath.

FFmpeg never gets a path of ours. It reads through this object, and with `protocol_whitelist=none` it can open nothing
else, so that a playlist disguised as a recording cannot make it read other files or fetch addresses.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from stt_engine.errors import AccessDenied, NightscribeError, SourceGone, StorageUnavailable


class AudioReader:
    """A seekable (where the source is) stream of bytes with the few methods that PyAV calls.

    A file that is opened here is closed by `close`; a stream that the caller opened stays the caller's.
    """

    def __init__(self, source: Path | BinaryIO, *, name: str) -> None:
        """Raises SourceGone, AccessDenied or StorageUnavailable, with `name` in the message."""
        self.label = name
        suffix = PurePosixPath(name).suffix.lower()
        self.name = "recording" + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "")
        """What FFmpeg sees, as a hint for its guess at the container; never the user's own name."""
        self.failure: BaseException | None = None
        """The first exception of the source itself, which PyAV may have turned into something else."""
        self.n_read_bytes = 0
        self._owned = isinstance(source, Path)
        try:
            self._stream: BinaryIO = source.open("rb") if isinstance(source, Path) else source
            self._can_seek = self._stream.seekable()
            self.size_bytes: int | None = None
            if self._can_seek:
                self.size_bytes = self._stream.seek(0, os.SEEK_END)
                self._stream.seek(0)
        except OSError as error:
            raise self.mapped(error) from error

    def seekable(self) -> bool:
        return self._can_seek

    def read(self, n_bytes: int = -1) -> bytes:
        try:
            content = self._stream.read(n_bytes)
            self.n_read_bytes += len(content)
            return content
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def seek(self, offset_bytes: int, whence: int = os.SEEK_SET) -> int:
        """Where FFmpeg asks for, which in a damaged file may be anywhere. That is no trouble of the source: before the
        beginning the answer is negative, as FFmpeg has it from its own readers; behind the end nothing more comes.
        """
        try:
            if self.size_bytes is None:
                return self._stream.seek(offset_bytes, whence)
            bases_bytes = {os.SEEK_SET: 0, os.SEEK_CUR: self._stream.tell(), os.SEEK_END: self.size_bytes}
            wanted_bytes = bases_bytes[whence] + offset_bytes
            if wanted_bytes < 0:
                return -errno.EINVAL
            self._stream.seek(min(wanted_bytes, self.size_bytes))  # some file systems refuse places far behind the end
            return wanted_bytes
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def tell(self) -> int:
        return self._stream.tell()

    @property
    def position_bytes(self) -> int:
        """How far the source was read; in a source that cannot seek, all that came."""
        return self._stream.tell() if self._can_seek else self.n_read_bytes

    def peek_at(self, offset_bytes: int, n_bytes: int) -> bytes:
        """Some bytes from elsewhere; the position is left where it was. Empty where the source cannot seek."""
        if not self._can_seek:
            return b""
        try:
            before = self._stream.tell()
            self._stream.seek(offset_bytes)
            found = self._stream.read(n_bytes)
            self._stream.seek(before)
        except OSError as error:
            raise self.mapped(error) from error
        return found

    def mapped(self, error: BaseException) -> NightscribeError:
        """Ours for an exception of the source: permission, vanished, anything else of storage."""
        if isinstance(error, NightscribeError):
            return error
        if isinstance(error, PermissionError):
            return AccessDenied(f"{self.label}: no permission to read it; give the user who runs this read access")
        if isinstance(error, FileNotFoundError):
            return SourceGone(f"{self.label}: does not exist; was it deleted or moved, or is its name misspelt?")
        if isinstance(error, IsADirectoryError):
            return SourceGone(f"{self.label}: is a directory, not a file; name the files inside")
        return StorageUnavailable(f"{self.label}: reading failed ({error or type(error).__name__}); try again")

    def close(self) -> None:
        if self._owned:
            self._stream.close()
