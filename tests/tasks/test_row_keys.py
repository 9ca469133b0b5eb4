"""Keys of many parts are read by processes, and are what one process reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest

from stt_engine.errors import DestinationRefused
from tasks import row_keys
from tasks.batches import batch_id
from tasks.land import land_batch
from tasks.ledger import read_ledger
from tasks.parts import Part, PartVanished, list_parts
from tasks.row_keys import RowKeys, digests, keys_of_parts
from tasks.storage import Store
from tasks.types import AudioFile, LandingBatch
from tests.tasks.builders import OPTIONS, audio_files, landed, stamp
from tests.tasks.waiting import gone, until


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Four parts count as many, each is an order of its own; the processes that read them."""
    seen: list[int] = []
    monkeypatch.setattr(row_keys, "MANY_PARTS", 4)
    monkeypatch.setattr(row_keys, "STRETCH_PARTS", 1)
    monkeypatch.setattr(row_keys, "usable_cores", lambda: 2)
    kill = row_keys.WorkerPool.kill

    def noting(pool: row_keys.WorkerPool) -> None:
        seen.extend(load.pid for load in pool.loads)
        kill(pool)

    monkeypatch.setattr(row_keys.WorkerPool, "kill", noting)
    return seen


def land_apart(store: Store, files: Sequence[AudioFile], options_hash: str = OPTIONS) -> list[Part]:
    """Each file a part of its own."""
    for file in files:
        batch = LandingBatch(batch_id([(file, 0)], options_hash), date(2026, 3, 1), options_hash, (file,), (0,))
        land_batch(store, batch, [landed(file)], stamp())
    return list(list_parts(store, "transcripts"))


def keys(found: RowKeys) -> tuple[list[bytes], list[bytes]]:
    return sorted(digests(found.files)), sorted(digests(found.uris))


def test_processes_read_what_one_would(store: Store, pids: list[int]) -> None:
    files = audio_files(9)
    land_apart(store, files[6:], "f" * 16)
    parts = land_apart(store, files[:6])
    found = list(row_keys.row_keys(store, parts, OPTIONS))
    joined = RowKeys(b"".join(k.files for k in found), b"".join(k.uris for k in found))
    assert keys(joined) == keys(keys_of_parts(store, parts, OPTIONS))
    assert len(list(digests(joined.files))) == 6
    ledger = read_ledger(store, OPTIONS)
    assert [ledger.has(file) for file in files] == [True] * 6 + [False] * 3
    assert [ledger.generation(file) for file in files] == [1] * 6 + [0] * 3
    assert pids
    until(lambda: all(map(gone, pids)))


def test_a_part_that_a_process_cannot_read_is_named(local_store: Store, pids: list[int]) -> None:
    parts = land_apart(local_store, audio_files(6))
    local_store.replace(parts[4].stored.path, b"these are not the bytes of a part")
    with pytest.raises(DestinationRefused, match=parts[4].batch_id):
        read_ledger(local_store, OPTIONS)
    local_store.delete(parts[4].stored.path)
    with pytest.raises(PartVanished, match=parts[4].batch_id):
        list(row_keys.row_keys(local_store, parts, OPTIONS))
    assert pids
    until(lambda: all(map(gone, pids)))
