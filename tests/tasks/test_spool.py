"""Where chunks wait: what is written is read, and nothing stays behind, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from stt_engine.errors import StorageUnavailable, UsageError
from stt_engine.types import Chunk, ChunkAudio
from tasks.spool import check_spool, fetch_folder, new_spool, read_chunks, spool_for, write_chunks
from tasks.spool_discards import SpoolDiscards

FILE_ID = "0f" * 16


def audio(count: int) -> list[ChunkAudio]:
    chance = np.random.default_rng(1)
    return [
        ChunkAudio(
            Chunk(FILE_ID, None, i, i * 1000, i * 1000 + 700),
            (chance.integers(-32768, 32767, 700) / 32768).astype(np.float32),
        )
        for i in range(count)
    ]


@pytest.fixture(params=["local", "remote"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "spool") if request.param == "local" else f"memory://{uuid.uuid4().hex}/spool"


def files_in(uri: str) -> list[str]:
    filesystem, path = fsspec.core.url_to_fs(uri)
    return list(filesystem.find(path)) if filesystem.exists(path) else []


def test_chunks_come_back_sample_by_sample_in_any_order(base: str) -> None:
    given = audio(5)
    with spool_for("run", base) as spool:
        assert spool.startswith(base)
        spooled = write_chunks(spool, FILE_ID, given)
        assert len(files_in(spool)) == 1
        for number in (3, 0, 4):
            (found,) = read_chunks([spooled[number]])
            assert found.chunk == given[number].chunk
            np.testing.assert_array_equal(found.samples, given[number].samples)
        discards = SpoolDiscards(spool)
        discards(spooled)
        discards(spooled)
        discards(())
        discards.close()
        assert files_in(spool) == []
        with pytest.raises(StorageUnavailable):
            list(read_chunks(spooled))
        assert write_chunks(spool, FILE_ID, []) == ()
        assert files_in(spool) == [], "a silent file left an empty object"
        write_chunks(spool, FILE_ID, given)
    assert files_in(base) == []


class SlowStore(MemoryFileSystem):
    """Deletes nothing before it is let to."""

    protocol = "slow"
    store: ClassVar[dict[str, Any]] = {}
    may_delete = threading.Event()

    def rm_file(self, path: str) -> None:
        assert self.may_delete.wait(60)
        super().rm_file(path)


def test_nobody_waits_for_a_store_to_delete() -> None:
    # The dispatcher did, two requests a file: a spool on S3 fed two GPUs and no more.
    fsspec.register_implementation("slow", SlowStore, clobber=True)
    with spool_for("run", f"slow://{uuid.uuid4().hex}") as spool:
        discards = SpoolDiscards(spool)
        discards(write_chunks(spool, FILE_ID, audio(1)))  # or it would hang here
        assert len(files_in(spool)) == 1
        SlowStore.may_delete.set()
        discards.close()
        assert files_in(spool) == []
        discards(write_chunks(spool, FILE_ID, audio(1)))  # an answer that came after the end
    assert files_in(spool) == []


def test_what_a_killed_process_left_is_swept_and_nobody_elses(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tasks.spool import fetch_folder, new_spool\n"
        "spool = new_spool(sys.argv[1], 'dead')\n"
        "held = fetch_folder(spool)\n"
        "(held.__enter__() / 'download.wav').write_bytes(b'x')\n"
        "print(spool, flush=True); input()"
    )
    dead = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert dead.stdout is not None
    left = Path(dead.stdout.readline().strip())
    alive = Path(new_spool(str(tmp_path), "alive"))
    assert left.exists(), "the spool of a live process was swept"
    assert list(left.rglob("download.wav"))
    dead.kill()
    dead.communicate()

    _, elsewhere, pid = left.name.rsplit("-", 2)
    stranger = tmp_path / left.name.replace(elsewhere, "deadbeef")
    stranger.mkdir()
    fresh = Path(new_spool(str(tmp_path), "fresh"))
    assert int(pid) == dead.pid
    assert not left.exists()
    assert alive.exists() and fresh.exists()
    assert stranger.exists(), "a process id means nothing on another machine"


def test_downloads_lie_in_the_spool(tmp_path: Path) -> None:
    with spool_for("run", str(tmp_path)) as spool, fetch_folder(spool) as folder:
        assert folder.parent == Path(spool)
    with fetch_folder("s3://bucket/spool") as folder:
        assert folder.name.endswith(f"-{os.getpid()}"), "the next run could not tell whose it is"
    assert not folder.exists()


def test_a_full_disk_is_said_and_may_pass(tmp_path: Path) -> None:
    with spool_for("run", str(tmp_path)) as spool:
        (Path(spool) / f"{FILE_ID}.pcm").symlink_to("/dev/full")
        with pytest.raises(StorageUnavailable, match="No space left on device; free some space"):
            write_chunks(spool, FILE_ID, audio(3))


def test_a_place_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="--spool"):
        check_spool(str(file / "spool"))
    check_spool(str(tmp_path / "new" / "folder"))
    assert list((tmp_path / "new" / "folder").iterdir()) == []
