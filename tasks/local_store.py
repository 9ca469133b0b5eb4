"""DEST on a local disk (or a network file system that has hard links)."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stt_engine.errors import AccessDenied, DestinationRefused, StorageUnavailable
from tasks.process_mark import owner_is_gone, owner_lives, process_mark
from tasks.storage import NotStored, Store, Stored, checked

TEMPORARY = "_tmp"
"""Below DEST: files being written. No reader's glob for *.parquet sees them."""
ABANDONED_AFTER = timedelta(hours=1)


class LocalStore(Store):
    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root.expanduser()))
        super().__init__(str(self._root))

    def create_exclusive(self, path: str, payload: bytes) -> bool:
        final = self._path(path)
        with self._mapped(final), self._temporary(final, payload) as temporary:
            try:
                os.link(temporary, final)
            except FileExistsError:
                # NFS may lose the answer to a link that succeeded and report the repeated request.
                return os.stat(temporary).st_nlink > 1
            except FileNotFoundError as error:  # `sweep` took us for dead: this process stood still for an hour
                raise StorageUnavailable(f"{final}: its temporary file is gone; try again") from error
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK):
                    raise DestinationRefused(
                        f"DEST {self.uri} lies on a file system without hard links ({error.strerror}), so a part "
                        "cannot be created exclusively; use a local disk such as ext4 or xfs, or S3"
                    ) from error
                raise
            _sync_folder(final.parent)
            return True

    def replace(self, path: str, payload: bytes) -> None:
        final = self._path(path)
        with self._mapped(final), self._temporary(final, payload) as temporary:
            os.replace(temporary, final)
            _sync_folder(final.parent)

    def read(self, path: str) -> bytes:
        with self._mapped(self._path(path)):
            return self._path(path).read_bytes()

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        with self._mapped(self._path(path)), self._path(path).open("rb") as file:
            file.seek(start)
            return file.read(max(0, stop - start))

    def stat(self, path: str) -> Stored | None:
        try:
            with self._mapped(self._path(path)):
                return self._stored(self._path(path))
        except NotStored:
            return None

    def list(self, prefix: str) -> Iterator[Stored]:
        folder = self._path(prefix.strip("/")) if prefix.strip("/") else self._root
        with self._mapped(folder):
            walk = os.walk(folder, onerror=_raise_unless_gone)
            names = sorted(os.path.join(parent, name) for parent, _, found in walk for name in found)
        for name in names:
            try:
                yield self._stored(Path(name))
            except FileNotFoundError:
                continue  # deleted since it was listed, as any listing may find

    def delete(self, path: str) -> None:
        with self._mapped(self._path(path)):
            self._path(path).unlink(missing_ok=True)

    def sweep(self) -> None:
        old = datetime.now(UTC) - ABANDONED_AFTER
        for stored in self.list(TEMPORARY):
            name = stored.path.removesuffix(".tmp")
            # by its age only where nothing else tells: the clock may have jumped since it was written
            if owner_is_gone(name) or (stored.modified_at < old and not owner_lives(name)):
                self.delete(stored.path)

    def _path(self, path: str) -> Path:
        return self._root / checked(path)

    def _stored(self, path: Path) -> Stored:
        found = path.stat()
        modified_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=found.st_mtime_ns // 1000)
        return Stored(path.relative_to(self._root).as_posix(), found.st_size, modified_at)

    @contextmanager
    def _temporary(self, final: Path, payload: bytes) -> Iterator[Path]:
        """A finished, flushed file on the same file system, gone at the end."""
        temporary = self._root / TEMPORARY / f"{final.name}.{uuid.uuid4().hex}{process_mark()}.tmp"
        _make_folder(final.parent)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _mapped(self, path: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotStored(f"{path} does not exist") from error
        except PermissionError as error:
            raise AccessDenied(f"{path}: {error.strerror}; give this user the right to read and write there") from error
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            raise DestinationRefused(f"DEST {self.uri}: {path}: {error.strerror}; is DEST a folder?") from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "free some space there" if full else "look after that disk"
            raise StorageUnavailable(f"{path}: {error.strerror}; {advice}, the next run takes it up again") from error


def _raise_unless_gone(error: OSError) -> None:
    """For os.walk, which passes over folders it cannot read: a ledger must not be read with parts missing."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _make_folder(folder: Path) -> None:
    """With its parents, each of which survives a power cut."""
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a new name survive a power cut; a no-op where folders cannot be opened."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
