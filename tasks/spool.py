"""Where chunks wait between splitting and transcribing: one object per file, on a disk or on any fsspec store.

A spool folder belongs to one run. It is removed with the run; what a killed run left is swept by the next one on the
same machine, by the mark of its process in the name.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import fsspec

from stt_engine.errors import StorageUnavailable, UsageError
from stt_engine.spool import BYTES_PER_SAMPLE, ChunkSpool, from_pcm16
from stt_engine.types import ChunkAudio
from tasks.addresses import check_address
from tasks.process_mark import owner_is_gone, process_mark
from tasks.types import SpooledChunk

log = logging.getLogger(__name__)

Written = TypeVar("Written")

_PREFIX = "nightscribe-spool-"
READERS = 8
"""Of one worker: from a store each read is a request that waits, from a disk mostly the making of floats."""


def new_spool(base: str | None, run_id: str) -> str:
    """A fresh spool for this run: below `base` (any fsspec URI), else in the machine's temporary folder.

    Raises UsageError where no folder can be made there.
    """
    name = f"{_PREFIX}{run_id}{process_mark()}"
    sweep(Path(tempfile.gettempdir()))
    if base is not None and "://" in base:
        return f"{base.rstrip('/')}/{name}"
    folder = Path(base or tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        spool = folder / name
        spool.mkdir()
    except OSError as error:
        raise UsageError(f"--spool {folder}: {error.strerror}; choose a folder that can be written") from error
    return str(spool)


def check_spool(base: str | None) -> None:
    """Raises UsageError unless a spool can be made below `base`; a remote one is believed until it is used."""
    if base is not None:
        check_address(base, "--spool")
    if base is None or "://" not in base:
        remove_spool(new_spool(base, f"check-{secrets.token_hex(4)}"))


@contextmanager
def spool_for(run_id: str, base: str | None = None) -> Iterator[str]:
    """A spool for the length of the block."""
    spool_uri = new_spool(base, run_id)
    try:
        yield spool_uri
    finally:
        remove_spool(spool_uri)


def sweep(folder: Path) -> None:
    """Remove the spools, and the downloads, of processes of this machine that are gone."""
    for left in folder.glob(f"{_PREFIX}*"):
        if owner_is_gone(left.name):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def fetch_folder(spool_uri: str) -> Iterator[Path]:
    """Where a file's download lies while it is decoded: in the spool, so that it goes with it if the worker is killed.

    With a remote spool, in the machine's temporary folder, where the next run sweeps it.
    """
    place = None if "://" in spool_uri else spool_uri
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}fetch-", suffix=process_mark(), dir=place) as folder:
        yield Path(folder)


def remove_spool(spool_uri: str) -> None:
    """What cannot be removed is only said: the run is over, and its rows stand."""
    if "://" in spool_uri:
        try:
            filesystem, path = fsspec.core.url_to_fs(spool_uri)
            if filesystem.exists(path):
                filesystem.rm(path, recursive=True)
        except Exception as error:  # noqa: BLE001 - every file system raises its own kind
            log.warning("the spool %s is left behind: %s", spool_uri, error)
    else:
        shutil.rmtree(spool_uri, ignore_errors=True)


def remove_spooled(base: str | None, file_ids: Iterable[str]) -> int:
    """Takes these files out of every spool below `base` (by default the machine's temporary folder), and returns how
    many were there. Spools of processes of this machine that are gone go whole."""
    if base is not None and "://" in base:
        filesystem, path = fsspec.core.url_to_fs(base)
        found = [name for file_id in file_ids for name in filesystem.glob(f"{path}/{_PREFIX}*/{file_id}.pcm")]
        for name in found:
            filesystem.rm_file(name)
        return len(found)
    removed = 0
    for folder in {Path(tempfile.gettempdir()), Path(base or tempfile.gettempdir())}:
        left = [name for file_id in file_ids for name in folder.glob(f"{_PREFIX}*/{file_id}.pcm")]
        for name in left:
            name.unlink(missing_ok=True)
        removed += len(left)
        sweep(folder)
    return removed


def write_chunks(spool_uri: str, file_id: str, chunks: Iterable[ChunkAudio]) -> tuple[SpooledChunk, ...]:
    """Spool a file's chunks as they come, and say where each lies. A remote spool gets the file in one upload."""
    if "://" in spool_uri:
        with fetch_folder(spool_uri) as folder:
            local = folder / file_id
            target = f"{spool_uri}/{file_id}.pcm"
            spooled = _write(local, target, chunks)
            if not spooled:
                return ()
            filesystem, path = fsspec.core.url_to_fs(target)
            filesystem.put_file(str(local), path)
            return spooled
    path = Path(spool_uri) / f"{file_id}.pcm"
    return _write(path, str(path), chunks)


def _write(local: Path, target: str, chunks: Iterable[ChunkAudio]) -> tuple[SpooledChunk, ...]:
    spooled = []
    spool = _disk(local, lambda: ChunkSpool(local))
    try:
        for audio in chunks:
            offset_bytes = _disk(local, partial(spool.append, audio))
            spooled.append(SpooledChunk(audio.chunk, target, offset_bytes))
    finally:
        _disk(local, spool.close)  # writes what is buffered, so it may fail too
    if not spooled:
        local.unlink()  # nothing was said in this file, and nobody will ask for its samples
    return tuple(spooled)


def _disk(path: Path, call: Callable[[], Written]) -> Written:
    try:
        return call()
    except OSError as error:
        raise StorageUnavailable(
            f"spool {path}: {error.strerror}; free some space or choose another --spool"
        ) from error


def read_chunks(chunks: Sequence[SpooledChunk]) -> list[ChunkAudio]:
    """The samples of spooled chunks, in order, several at once: a device waits for them.

    Raises:
        StorageUnavailable: the spool does not hold them (any more).
    """
    with ThreadPoolExecutor(min(READERS, max(1, len(chunks)))) as readers:
        return list(readers.map(_read_chunk, chunks))


def _read_chunk(spooled: SpooledChunk) -> ChunkAudio:
    start, size = spooled.offset_bytes, spooled.chunk.n_samples * BYTES_PER_SAMPLE
    try:
        if "://" in spooled.spool_uri:
            filesystem, path = fsspec.core.url_to_fs(spooled.spool_uri)
            pcm = filesystem.cat_file(path, start=start, end=start + size)
        else:
            with Path(spooled.spool_uri).open("rb") as file:
                file.seek(start)
                pcm = file.read(size)
    except OSError as error:
        raise StorageUnavailable(f"spool {spooled.spool_uri}: {error}; is the run over?") from error
    if len(pcm) != size:
        found = f"{len(pcm)} of {size} bytes at {start}"
        raise StorageUnavailable(f"spool {spooled.spool_uri}: {found}; is the disk full?")
    return ChunkAudio(spooled.chunk, from_pcm16(pcm))
