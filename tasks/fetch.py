"""Bringing one file of SOURCE to where a decoder can open it, sure that it is the one that was listed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from stt_engine.errors import AccessDenied, AudioTooLarge, SourceChanged, SourceGone, StorageUnavailable
from tasks import s3
from tasks.backoff import with_backoff
from tasks.listing import from_local, is_local, is_s3, mapped, open_fsspec
from tasks.s3_errors import NoSuchObject, PreconditionFailed
from tasks.types import AudioFile

PIECE_BYTES = 1 << 20
_LONGEST_SUFFIX = 9
"""A key may be longer than a file's name."""


@dataclass(frozen=True, slots=True)
class FetchedAudio:
    path: Path
    content_sha256: str
    temporary: bool
    """True when `path` is a download that whoever asked for it deletes; False when it is the source file itself."""

    def discard(self) -> None:
        if self.temporary:
            self.path.unlink(missing_ok=True)


def fetch(file: AudioFile, to: Path | None = None, *, max_bytes: int | None = None) -> FetchedAudio:
    """The file, ready to be opened: a local one in place, any other downloaded into the folder `to` (default: the
    machine's temporary folder) under its file_id and suffix; a download that failed is removed.

    Raises SourceChanged when it is no longer what the listing saw, SourceGone, AccessDenied, StorageUnavailable (after
    back-off, or with a full disk), AudioTooLarge beyond `max_bytes`. A file of zero bytes is no error here.
    """
    if max_bytes is not None and file.size_bytes > max_bytes:
        raise _too_large(file, max_bytes)
    if is_local(file.uri):
        return _fetch_local(file, max_bytes)
    path = _new_path(file, Path(tempfile.gettempdir()) if to is None else to)
    try:
        digest = with_backoff(lambda: _download(file, path, max_bytes))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return FetchedAudio(path, digest, temporary=True)


def confirm_unchanged(file: AudioFile) -> None:
    """Raises SourceChanged or SourceGone when a LOCAL file is no longer what the listing saw; for after decoding it.

    Downloads need no second look: they were whole and unchanged when they were written.
    """
    if not is_local(file.uri):
        return
    try:
        now = from_local(file.uri, file.key, os.stat(file.uri))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceGone(f"{file.uri} was deleted after it was listed") from error
    except OSError as error:
        raise _unreadable(file, error) from error
    if (now.size_bytes, now.modified_at) != (file.size_bytes, file.modified_at):
        raise _changed(file)


def _fetch_local(file: AudioFile, max_bytes: int | None) -> FetchedAudio:
    confirm_unchanged(file)
    try:
        with open(file.uri, "rb") as opened:
            digest, _ = _read_through(file, opened.read, lambda piece: None, max_bytes)
    except FileNotFoundError as error:
        raise SourceGone(f"{file.uri} was deleted after it was listed") from error
    except OSError as error:
        raise _unreadable(file, error) from error
    confirm_unchanged(file)
    return FetchedAudio(Path(file.uri), digest, temporary=False)


def _download(file: AudioFile, path: Path, max_bytes: int | None) -> str:
    """One attempt, from the first byte on. Returns the sha256 of the content in hex."""
    try:
        with path.open("wb") as sink:
            digest, received = _stream(file, sink, max_bytes)
    except OSError as error:
        raise StorageUnavailable(f"{path}: {error.strerror}; free some space there or choose another spool") from error
    if received != file.size_bytes:
        if file.etag is not None and is_s3(file.uri):  # the store has confirmed that it is the object that was listed
            raise StorageUnavailable(
                f"{file.uri}: the store did not send it whole ({received:,} of {file.size_bytes:,} bytes arrived); "
                "try again later"
            )
        raise _changed(file)
    return digest


def _stream(file: AudioFile, sink: BinaryIO, max_bytes: int | None) -> tuple[str, int]:
    if not is_s3(file.uri):
        filesystem, inside = open_fsspec(file.uri)
        try:
            opened = mapped(file.uri, lambda: filesystem.open(inside, "rb"))
            with opened:
                return _read_through(file, lambda n: mapped(file.uri, lambda: opened.read(n)), _writer(sink), max_bytes)
        except FileNotFoundError as error:
            raise SourceGone(f"{file.uri} was deleted after it was listed") from error
    digest, write, received = hashlib.sha256(), _writer(sink), 0

    def take(piece: bytes) -> None:
        nonlocal received
        received += len(piece)
        if max_bytes is not None and received > max_bytes:
            raise _too_large(file, max_bytes)
        digest.update(piece)
        write(piece)

    bucket, key = s3.split_uri(file.uri)
    try:
        s3.connect().download(bucket, key, etag=file.etag, sink=take)
    except PreconditionFailed as error:
        raise _changed(file) from error
    except NoSuchObject as error:
        raise SourceGone(f"{file.uri} was deleted after it was listed") from error
    return digest.hexdigest(), received


def _read_through(
    file: AudioFile, read: Callable[[int], bytes], write: Callable[[bytes], None], max_bytes: int | None
) -> tuple[str, int]:
    digest, received = hashlib.sha256(), 0
    while piece := read(PIECE_BYTES):
        received += len(piece)
        if max_bytes is not None and received > max_bytes:
            raise _too_large(file, max_bytes)
        digest.update(piece)
        write(piece)
    return digest.hexdigest(), received


def _writer(sink: BinaryIO) -> Callable[[bytes], None]:
    def write(piece: bytes) -> None:
        try:
            sink.write(piece)
        except OSError as error:  # ours, not the store's: the disk that downloads go to
            raise StorageUnavailable(
                f"{sink.name}: {error.strerror}; free some space or choose another spool"
            ) from error

    return write


def _new_path(file: AudioFile, folder: Path) -> Path:
    suffix = PurePosixPath(file.key).suffix.lower()  # some raw formats are known by nothing else
    plain = suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= _LONGEST_SUFFIX
    descriptor, name = tempfile.mkstemp(prefix=f"{file.file_id}-", suffix=suffix if plain else "", dir=folder)
    os.close(descriptor)
    return Path(name)


def _changed(file: AudioFile) -> SourceChanged:
    return SourceChanged(f"{file.uri} changed after it was listed; it is left for the next run")


def _too_large(file: AudioFile, max_bytes: int) -> AudioTooLarge:
    return AudioTooLarge(
        f"{file.uri} has more than the {max_bytes:,} bytes allowed; raise max_file_bytes and do it again with --force"
    )


def _unreadable(file: AudioFile, error: OSError) -> AccessDenied | StorageUnavailable:
    if isinstance(error, PermissionError):
        return AccessDenied(f"{file.uri}: {error.strerror}; give this user the right to read it")
    return StorageUnavailable(f"{file.uri}: {error.strerror}")
