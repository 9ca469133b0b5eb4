"""DEST: where tables, plans and run records lie, on a local disk or in S3.

Everything that Nightscribe promises about "exactly one row per file" rests on one operation, the exclusive create:
of any number of writers of one path exactly one is told True, and readers see the whole object or none. On S3 that is
one PUT with `If-None-Match: *`; locally a finished file under a temporary name and `link(2)`, which refuses an existing
name. `Store.prove` checks that a store keeps that promise before a run trusts it.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stt_engine.errors import DestinationRefused, NightscribeError, StorageUnavailable
from tasks import s3
from tasks.addresses import holds_secret
from tasks.s3_errors import NoSuchObject


@dataclass(frozen=True, slots=True)
class Stored:
    """One object of a store."""

    path: str
    """Relative to DEST, with `/`."""
    size_bytes: int
    modified_at: datetime
    """UTC, by the store's own clock."""


class NotStored(NightscribeError):
    """There is no such object in the store. Caught by those who read; not for users."""


class Store(ABC):
    """DEST. Paths are relative, with `/`. Every method may raise StorageUnavailable, AccessDenied."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")

    def uri_of(self, path: str) -> str:
        return f"{self.uri}/{path}"

    @abstractmethod
    def create_exclusive(self, path: str, payload: bytes) -> bool:
        """Creates the object whole. False when it exists already; then nothing is changed."""

    @abstractmethod
    def replace(self, path: str, payload: bytes) -> None:
        """Writes the object whole, over an older one if there is one."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Raises NotStored."""

    @abstractmethod
    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes `start` (included) to `stop` (excluded). Raises NotStored."""

    @abstractmethod
    def stat(self, path: str) -> Stored | None:
        """None where there is no such object."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Stored]:
        """Everything below the folder `prefix`, sorted by path."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """No error when it is gone already."""

    def sweep(self) -> None:
        """Removes what writers that were killed left behind, none of it visible to readers."""
        return

    def prove(self) -> None:
        """Raises DestinationRefused, with the reason, unless DEST is writable and refuses a second exclusive create;
        StorageUnavailable where it cannot be told."""
        probe = f"_probe/{uuid.uuid4().hex}"
        first, second = b"nightscribe was here first", b"and this must not replace it"
        try:
            created = self.create_exclusive(probe, first)
            again = self.create_exclusive(probe, second)
            kept = self.read(probe)
            self.delete(probe)
            self.sweep()
        except DestinationRefused:
            raise
        except StorageUnavailable as error:  # it may well be a good place, tomorrow
            raise StorageUnavailable(f"DEST {self.uri} does not answer: {error}") from error
        except (NightscribeError, OSError) as error:
            raise DestinationRefused(f"DEST {self.uri} cannot be written: {error}") from error
        if not created or again or kept != first:
            raise DestinationRefused(
                f"DEST {self.uri} does not refuse to create an object twice (S3: it ignores If-None-Match), so two "
                "runs could land the same file; use AWS S3, Ceph, MinIO, R2 or a local disk"
            )


def open_store(dest: str) -> Store:
    """The store at DEST: a local path, `file:///PATH` or `s3://BUCKET[/PREFIX]`.

    Raises DestinationRefused for anything else. Touches nothing yet: `Store.prove` does.
    """
    if holds_secret(dest):
        raise DestinationRefused(
            "DEST holds a user, password or key, which every table and log would show: give it in the environment"
        )
    scheme, separator, rest = dest.partition("://")
    if not separator:
        if not dest.strip():
            raise DestinationRefused("DEST is empty; give a local path or s3://BUCKET/PREFIX")
        return _local_store(dest)
    if scheme == "file" and rest.startswith("/"):
        return _local_store(rest)
    if scheme in ("s3", "s3a"):
        try:
            bucket, prefix = s3.split_uri(dest)
        except ValueError as error:
            raise DestinationRefused(f"DEST {error}") from error
        return S3Store(bucket, prefix)
    raise DestinationRefused(
        f"DEST {dest} is neither a local path nor s3://BUCKET/PREFIX: only there can a part be created exclusively"
    )


def _local_store(path: str) -> Store:
    from tasks.local_store import LocalStore  # it derives from Store

    return LocalStore(Path(path))


class S3Store(Store):
    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        super().__init__(f"s3://{bucket}/{self._prefix}")

    def create_exclusive(self, path: str, payload: bytes) -> bool:
        with self._named():
            return s3.connect().put(self._bucket, self._key(path), payload, only_if_absent=True)

    def replace(self, path: str, payload: bytes) -> None:
        with self._named():
            s3.connect().put(self._bucket, self._key(path), payload)

    def read(self, path: str) -> bytes:
        with self._named():
            return s3.connect().get(self._bucket, self._key(path))

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        if stop <= start:
            return b""
        with self._named():
            return s3.connect().get(self._bucket, self._key(path), start=start, stop=stop)

    def stat(self, path: str) -> Stored | None:
        with self._named():
            found = s3.connect().head(self._bucket, self._key(path))
        return Stored(path, found.size_bytes, found.modified_at) if found else None

    def list(self, prefix: str) -> Iterator[Stored]:
        with self._named():
            folder = self._key(prefix.strip("/")) + "/" if prefix.strip("/") else self._prefix
            for found in s3.connect().list(self._bucket, folder):
                yield Stored(found.key[len(self._prefix) :], found.size_bytes, found.modified_at)

    def delete(self, path: str) -> None:
        with self._named():
            s3.connect().delete(self._bucket, self._key(path))

    def _key(self, path: str) -> str:
        return self._prefix + checked(path)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except NoSuchObject as error:
            raise NotStored(str(error)) from error


def checked(path: str) -> str:
    """The path, if it stays inside DEST."""
    parts = path.split("/")
    if not path or path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise ValueError(f"{path!r} is no path inside DEST")
    return path
