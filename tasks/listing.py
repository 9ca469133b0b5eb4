"""Listing the audio of SOURCE: a local folder, an S3 prefix, or any other fsspec location.

Names are taken as they are: nothing is decoded or encoded, so spaces, `#`, `%`, `?`, `+`, quotes and both Unicode
forms of Korean survive. Listings are lazy; S3 is read page by page, whatever its size.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from stt_engine.errors import AccessDenied, NightscribeError, SourceNotFound, StorageUnavailable
from tasks import s3
from tasks.addresses import check_address
from tasks.backoff import with_backoff
from tasks.metadata_hosts import MetadataHost, guarded_client
from tasks.patterns import KeyPatterns, hidden
from tasks.s3_errors import NoSuchObject
from tasks.types import AudioFile

log = logging.getLogger(__name__)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOLDERS_OF_DEST = ("transcripts", "segments", "words", "_plans", "_runs", "_reports", "_probe")
"""What runs write below DEST."""


def list_audio(source: str, patterns: Sequence[str] = (), *, exclude: str | None = None) -> Iterator[AudioFile]:
    """The audio below SOURCE (a local path or any fsspec URI; a single file is itself), in the listing's order.

    `patterns` as in `tasks.patterns.KeyPatterns`. Hidden files are passed over, and so is what a run keeps below
    `exclude` (DEST, which may lie inside SOURCE or be the same folder). Raises, at the first item: SourceNotFound,
    AccessDenied, StorageUnavailable.
    """
    wanted = KeyPatterns(patterns)
    inside = _local_path(exclude).rstrip("/") if exclude else None
    kept = tuple(f"{inside}/{folder}/" for folder in FOLDERS_OF_DEST) if inside is not None else ()
    for file in _everything(source):
        if file.uri.startswith(kept):
            continue
        if _speakable(file.uri) and (file.uri == _local_path(source) or (not hidden(file.key) and wanted(file.key))):
            yield file


def check_source(source: str) -> None:
    """Raises SourceNotFound, AccessDenied or StorageUnavailable when SOURCE cannot be listed; reads a page at most.

    SourceNotFound too for a name that is empty; SourceRefused for one that the site does not allow.
    """
    if not source.strip():
        raise SourceNotFound("SOURCE is empty: name a folder, a file or a URI (is a shell variable not set?)")
    check_address(source, "SOURCE")
    next(_everything(source), None)


def _everything(source: str) -> Iterator[AudioFile]:
    if is_s3(source):
        return _list_s3(source)
    if is_local(source):
        return _list_local(_local_path(source), source)
    return _list_fsspec(source)


def is_s3(uri: str) -> bool:
    return uri.startswith(("s3://", "s3a://"))


def is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith(("file://", "local://"))


def _local_path(uri: str) -> str:
    """The absolute path; S3 and other URIs without their last slash."""
    if not is_local(uri):
        return uri.rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.partition("://")[2] or uri))


def _speakable(uri: str) -> bool:
    try:
        uri.encode()
    except UnicodeEncodeError:
        log.warning("passed over a file whose name is not UTF-8, which no table can hold: %s; rename it", ascii(uri))
        return False
    return True


def _list_s3(source: str) -> Iterator[AudioFile]:
    try:
        bucket, prefix = s3.split_uri(source)
    except ValueError as error:
        raise SourceNotFound(f"SOURCE {error}") from error
    folder = prefix.rstrip("/") + "/" if prefix.rstrip("/") else ""
    empty = True
    try:
        for found in s3.connect().list(bucket, folder):
            empty = False
            if not found.key.endswith("/"):  # the marker that some tools leave for an empty folder
                yield _from_s3(bucket, found, found.key[len(folder) :])
        single = s3.connect().head(bucket, prefix) if empty and prefix and not prefix.endswith("/") else None
    except NoSuchObject as error:
        raise SourceNotFound(
            f"SOURCE {source}: there is no bucket {bucket}; check its name and the endpoint"
        ) from error
    if single:
        yield _from_s3(bucket, single, prefix.rpartition("/")[2])
    elif empty and prefix:
        raise SourceNotFound(f"SOURCE {source}: nothing lies there; check the bucket, the prefix and its case")


def _from_s3(bucket: str, found: s3.S3Object, key: str) -> AudioFile:
    return AudioFile(f"s3://{bucket}/{found.key}", key, found.etag or None, found.size_bytes, found.modified_at)


def _list_local(path: str, source: str) -> Iterator[AudioFile]:
    try:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            yield from_local(path, os.path.basename(path), status)
            return
        with os.scandir(path):
            pass
    except FileNotFoundError as error:
        raise SourceNotFound(
            f"SOURCE {source}: there is no such file or folder; check the path, and that it is mounted"
        ) from error
    except PermissionError as error:
        raise AccessDenied(f"SOURCE {source}: {error.strerror}; give this user the right to read it") from error
    except (OSError, ValueError) as error:
        raise SourceNotFound(f"SOURCE {source}: {error}") from error
    yield from _walk(path, "", frozenset())


def _walk(folder: str, below: str, above: frozenset[tuple[int, int]]) -> Iterator[AudioFile]:
    """Depth first, sorted by name. Follows links to folders, but not into a folder that it is inside of."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in above:
            return
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        log.warning("passed over the folder %s: %s", ascii(folder), error.strerror)
        return
    for entry in found:
        key = f"{below}{entry.name}"
        try:
            if entry.is_dir():
                yield from _walk(entry.path, key + "/", above | {(status.st_dev, status.st_ino)})
            elif entry.is_file():
                yield from_local(entry.path, key, entry.stat())
        except FileNotFoundError:
            continue  # gone since it was listed
        except OSError as error:
            log.warning("passed over %s: %s", ascii(entry.path), error.strerror)


def from_local(path: str, key: str, status: os.stat_result) -> AudioFile:
    modified_at = EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    return AudioFile(path, key, None, status.st_size, modified_at)


def _list_fsspec(source: str) -> Iterator[AudioFile]:
    """Folder by folder through `fs.walk`. The uri of a file in a chain (`zip://A::s3://B`) keeps the chain's rest."""
    try:
        filesystem, root = open_fsspec(source)
        info = with_backoff(lambda: mapped(source, lambda: filesystem.info(root)))
    except FileNotFoundError as error:
        raise SourceNotFound(f"SOURCE {source}: nothing lies there; check the address") from error
    if info["type"] == "file":
        yield replace(_from_info(filesystem, source, info, root.rpartition("/")[2]), uri=_local_path(source))
        return
    folders = mapped(source, lambda: filesystem.walk(root, detail=True, on_error="raise"))
    while (step := mapped(source, lambda: next(folders, None))) is not None:
        _, below, files = step
        ordered = {name: below[name] for name in sorted(below)}
        below.clear()
        below.update(ordered)  # fsspec goes down in the order of this mapping
        for name in sorted(files):
            path = files[name]["name"]
            key = path[len(root.rstrip("/")) :].lstrip("/")
            yield _from_info(filesystem, source, files[name], key)


def _from_info(filesystem: Any, source: str, info: Mapping[str, Any], key: str) -> AudioFile:
    _, chained, rest = source.partition("::")
    uri = filesystem.unstrip_protocol(info["name"]) + chained + rest
    etag = next((info[name] for name in ("ETag", "etag", "md5Hash", "content_md5") if info.get(name)), None)
    moment = next((info[name] for name in _MOMENTS if info.get(name)), None)
    return AudioFile(uri, key, None if etag is None else str(etag).strip('"'), int(info["size"] or 0), _moment(moment))


_MOMENTS = ("mtime", "LastModified", "last_modified", "modified", "updated", "created")


def _moment(value: object) -> datetime:
    """UTC; the epoch where a store does not tell."""
    if isinstance(value, int | float):
        return EPOCH + timedelta(seconds=value)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return EPOCH
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return EPOCH


def open_fsspec(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it. Raises SourceNotFound for a protocol that cannot be served."""
    try:
        guards = {name: {"get_client": guarded_client} for name in ("http", "https") if f"{name}:" in uri}
        if "::" in uri:
            return url_to_fs(uri, **guards)  # type: ignore[no-any-return]
        protocol = uri.partition("://")[0]
        filesystem = fsspec.filesystem(protocol, use_listings_cache=False, **guards.get(protocol, {}))
        return filesystem, filesystem._strip_protocol(uri)
    except ImportError as error:
        raise SourceNotFound(f"SOURCE {uri}: its protocol needs another package: {error}") from error
    except (ValueError, TypeError) as error:
        raise SourceNotFound(f"SOURCE {uri}: {error}") from error


def mapped(uri: str, call: Callable[[], Any]) -> Any:
    """What `call` into an fsspec file system returns. FileNotFoundError passes through: its meaning is the caller's."""
    try:
        return call()
    except NightscribeError:
        raise
    except Exception as error:  # every file system raises its own kind; whatever it is, it came from the store
        if (refused := MetadataHost.behind(error)) is not None:
            raise AccessDenied(f"{uri}: leads to {refused}") from error
        if isinstance(error, FileNotFoundError):
            raise
        if isinstance(error, PermissionError):
            raise AccessDenied(f"{uri}: access is refused; check the credentials in the environment") from error
        raise StorageUnavailable(f"{uri}: {type(error).__name__}: the store did not answer as it should") from error
