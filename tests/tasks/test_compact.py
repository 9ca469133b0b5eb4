"""Compaction: whatever is killed, whoever else is at work, each recording has one row and the row says what it said."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stt_engine.errors import DestinationRefused, UsageError
from tasks.compact import CompactionSummary, compact
from tasks.compact_log import CompactionLog
from tasks.ledger import read_ledger
from tasks.liveness import RunIdentity
from tasks.parts import list_parts
from tasks.plan import make_plan
from tasks.rows import from_parquet, to_parquet
from tasks.schema import TABLES
from tasks.storage import Store, open_store
from tasks.types import AudioFile
from tests.long_form import long
from tests.tasks.builders import NOON, OPTIONS, audio_files
from tests.tasks.compacting import (
    Killed,
    WatchedStore,
    contents,
    land,
    land_nights,
    live_uris,
    n_parts,
    text_of,
)
from tests.tasks.views import latest

LATER = NOON + timedelta(days=30)
CHANGES = ("create", "replace", "delete")


def archive(store: Store, n_files: int = 12) -> list[AudioFile]:
    """Nights of three files; then one done again by force, two in a new version, one under other options."""
    files = audio_files(n_files)
    land_nights(store, files)
    land(store, files[:1], 1, at=LATER, note=" redone")
    land(store, [replace(file, etag="new") for file in files[1:3]], 1, at=LATER, note=" redone")
    land(store, files[3:4], at=LATER, options_hash="f" * 16, note=" redone")
    return files


def newest_texts(files: list[AudioFile]) -> dict[str, str | None]:
    """What the archive says of each file at last; None for those that failed."""
    redone = {0: 1, 1: 1, 2: 1, 3: 0}
    texts = [text_of(file, redone.get(at, 0), " redone" if at in redone else "") for at, file in enumerate(files)]
    return {
        file.uri: None if file.size_bytes % 5 == 0 else f"{text} bye" for file, text in zip(files, texts, strict=True)
    }


def assert_compacted(store: Store, files: list[AudioFile], *, parts: int | None = 1) -> None:
    found = contents(store)
    assert [row[0] for row in found["transcripts"]] == sorted(file.uri for file in files)
    assert {row[0]: row[3] for row in found["transcripts"]} == newest_texts(files)
    good = sorted(uri for uri, text in newest_texts(files).items() if text is not None)
    owner = {row[0]: row[2] for row in found["transcripts"]}
    assert Counter(row[0] for row in found["segments"]) == Counter(good * 2)
    assert Counter(row[0] for row in found["words"]) == Counter(good * 3)
    assert all(row[1] == owner[row[0]] for table in ("segments", "words") for row in found[table])
    assert sorted(str(row[3]) for row in found["segments"] if row[2] == 0) == sorted(
        text.removesuffix(" bye") for text in newest_texts(files).values() if text is not None
    )
    assert parts is None or [n_parts(store, table) for table in TABLES] == [parts] * 3
    assert CompactionLog(store).read().unfinished == ()


def planned(store: Store, files: list[AudioFile], options_hash: str = OPTIONS) -> int:
    run = RunIdentity.here("dry")
    return len(make_plan(store, files, run=run, options_hash=options_hash, claim=False).files)


def test_small_parts_become_one_and_the_newest_row_stays(store: Store) -> None:
    files = archive(store)
    before = {options: read_ledger(store, options) for options in (OPTIONS, "f" * 16)}
    dry = compact(store, dry_run=True)
    assert n_parts(store) == 7
    done = compact(store)
    assert replace(dry, dry_run=False, bytes_after=done.bytes_after) == done
    assert (done.parts_before, done.parts_after, done.rows, done.rows_superseded) == (7, 1, 12, 4)
    assert "7 parts became 1; 12 rows stay, 4 superseded ones are gone" in done.line
    assert_compacted(store, files)

    every = [*files, *(replace(file, etag="new") for file in files[1:3])]
    for options, ledger in before.items():
        after = read_ledger(store, options)
        assert [after.has(file) for file in every] == [ledger.has(file) for file in every]
        assert [after.generation(file) for file in every] == [ledger.generation(file) for file in every]
        assert after.landed_batches > ledger.landed_batches
    assert planned(store, every) == 0, "a row that was dropped is done all the same"
    assert planned(store, files[3:4], "f" * 16) == 0

    again = compact(store)
    assert (again.parts_before, again.parts_after, again.rows_superseded) == (1, 1, 0)
    assert again.line == "nothing to compact: 1 parts, 12 rows"

    land(store, files[:2], 2, at=LATER + timedelta(days=1))
    assert compact(store).rows_superseded == 2
    assert read_ledger(store, OPTIONS).generation(files[0]) == 3
    assert planned(store, every) == 0
    assert n_parts(store) == n_parts(store, "_superseded") == 1


def test_parts_keep_below_the_size_aimed_at(local_store: Store) -> None:
    files = audio_files(30)
    land_nights(local_store, files, per_night=2)
    sizes = [part.stored.size_bytes for part in list_parts(local_store, "transcripts")]
    # Each part is made bigger by its schema than by its rows, so that merged ones are far smaller than their sum.
    target = max(sizes) * 4
    done = compact(local_store, target_bytes=target)
    assert 1 <= done.parts_after < done.parts_before == 15
    assert all(part.stored.size_bytes <= target for part in list_parts(local_store, "transcripts"))
    assert live_uris(local_store) == Counter(file.uri for file in files)
    first = compact(local_store, target_bytes=min(sizes))
    assert first.parts_after == first.parts_before, "what is large already is left alone"
    with pytest.raises(UsageError, match="--target-bytes 12"):
        compact(local_store, target_bytes=12)


def test_a_large_part_is_rewritten_when_rows_of_it_are_superseded(local_store: Store) -> None:
    files = audio_files(6)
    land(local_store, files)
    land(local_store, files[:2], 1, at=LATER)
    done = compact(local_store, target_bytes=1_000)
    assert (done.parts_before, done.parts_after, done.rows, done.rows_superseded) == (2, 2, 6, 2)
    assert live_uris(local_store) == Counter(file.uri for file in files)


def test_schema_metadata_and_descriptions_are_kept(local_store: Store) -> None:
    archive(local_store)
    as_landed = {}
    for table in TABLES:
        first, *_ = list_parts(local_store, table)
        as_landed[table] = from_parquet(local_store.read(first.stored.path)).schema
    compact(local_store)
    for table, schema in TABLES.items():
        (part,) = list_parts(local_store, table)
        whole = from_parquet(local_store.read(part.stored.path))
        assert whole.schema.equals(as_landed[table], check_metadata=True)
        metadata = whole.schema.metadata
        assert metadata[b"nightscribe.table"] == table.encode()
        assert metadata[b"nightscribe.engine_version"] == b"1.2.3"
        assert set(json.loads(metadata[b"nightscribe.columns"])) == set(schema.names)
        file = pq.ParquetFile(io.BytesIO(local_store.read(part.stored.path)))
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_columns_that_an_older_version_did_not_have_become_null(local_store: Store) -> None:
    files = audio_files(4)
    old = land(local_store, files[:2])
    path = f"transcripts/ingest_date=2026-03-01/{old.batch_id}.parquet"
    local_store.replace(path, to_parquet(from_parquet(local_store.read(path)).drop_columns(["labels", "codec"])))
    land(local_store, files[2:])
    compact(local_store)
    (part,) = list_parts(local_store, "transcripts")
    table = from_parquet(local_store.read(part.stored.path))
    assert table.schema.names == TABLES["transcripts"].names
    assert table["codec"].to_pylist() == [None, None, "pcm_mulaw", "pcm_mulaw"]


def test_parts_with_newer_columns_are_left_alone_and_damaged_ones_named(local_store: Store) -> None:
    files = audio_files(9)
    land_nights(local_store, files)
    newer, *_, last = list_parts(local_store, "transcripts")
    table = from_parquet(local_store.read(newer.stored.path))
    columns = json.loads(table.schema.metadata[b"nightscribe.columns"]) | {"mood": "a column of tomorrow"}
    metadata = table.schema.metadata | {b"nightscribe.columns": json.dumps(columns).encode()}
    local_store.replace(newer.stored.path, to_parquet(table.replace_schema_metadata(metadata)))
    done = compact(local_store)
    assert (done.parts_after, done.parts_left_alone) == (2, 1)
    assert local_store.stat(newer.stored.path) is not None
    assert local_store.stat(last.stored.path) is None
    (merged,) = (p for p in list_parts(local_store, "transcripts") if p.stored.path != newer.stored.path)
    local_store.replace(merged.stored.path, local_store.read(merged.stored.path)[:-100])
    with pytest.raises(DestinationRefused, match=merged.batch_id):
        compact(local_store)


def test_killed_before_every_change_and_run_again(local_store: Store, tmp_path: Path) -> None:
    """Between any two steps the views, our own readers and the planner are right; the next compaction ends it."""
    files = archive(local_store, 6)
    template = Path(local_store.uri)
    steps = 0

    def count(what: str, path: str) -> None:
        nonlocal steps
        steps += what in CHANGES

    shutil.copytree(template, tmp_path / "counted")
    compact(WatchedStore(open_store(str(tmp_path / "counted")), count))
    assert steps > 25
    for at in range(steps):
        left = at

        def kill(what: str, path: str) -> None:
            nonlocal left
            left -= what in CHANGES
            if left < 0:
                raise Killed

        place = tmp_path / f"killed-{at}"
        shutil.copytree(template, place)
        store = open_store(str(place))
        with pytest.raises(Killed):
            compact(WatchedStore(store, kill))
        assert {uri for uri, n in live_uris(store).items() if n < 1} == set()
        assert planned(store, files) == 0
        if at % 4 == 0:
            assert {row["source_uri"]: row["text"] for row in latest(place, "transcripts")} == newest_texts(files)
            good = [uri for uri, text in newest_texts(files).items() if text is not None]
            assert Counter(row["source_uri"] for row in latest(place, "segments")) == Counter(good * 2)
            assert Counter(row["source_uri"] for row in latest(place, "words")) == Counter(good * 3)
        compact(store)
        assert_compacted(store, files)
        assert planned(store, files) == 0
        shutil.rmtree(place)


@pytest.mark.parametrize("dest", ["local", "moto"], indirect=True)
def test_processes_killed_at_random_leave_one_row_per_file(
    dest: str, store: Store, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    chance = random.Random(20260302)
    files = archive(store)
    for _ in range(2):
        runs = [spawn("tests.tasks.compact_run", dest, "128000000") for _ in range(2)]
        for run in runs:
            assert run.stdout is not None and run.stdin is not None
            assert run.stdout.readline() == "ready\n", run.communicate()[1]
        for run in runs:
            assert run.stdin is not None
            run.stdin.write("go\n")
            run.stdin.flush()
        for run in runs:
            assert run.stdout is not None
            lines = [run.stdout.readline() for _ in range(chance.randint(2, 25))]
            if lines[-1] not in ("", "done\n"):
                run.kill()
            run.wait()
        assert set(live_uris(store)) == {file.uri for file in files}
    compact(store)
    assert_compacted(store, files)


def test_readers_see_every_row_once_before_every_step(local_store: Store) -> None:
    files = archive(local_store)
    store = local_store
    twice = Counter(file.uri for file in files) + Counter(file.uri for file in files[:4])
    seen = []

    def look(what: str, path: str) -> None:
        if what in CHANGES:
            now = live_uris(store)
            assert now in (twice, Counter(file.uri for file in files))
            assert read_ledger(store, OPTIONS).generation(files[0]) == 2
            seen.append(what)

    compact(WatchedStore(store, look))
    assert len(seen) > 30


@pytest.mark.parametrize("moment", ["listed transcripts/", "read transcripts/", "listed _superseded/"])
def test_a_compaction_in_the_middle_of_a_listing_or_reading(local_store: Store, moment: str) -> None:
    """A part that vanished, and a listing that passed the output's place before it was there: looked at again."""
    files = archive(local_store)
    compact(local_store)
    land(local_store, files[4:6], 1, at=LATER)
    swapped = []

    def swap(what: str, path: str) -> None:
        if f"{what} {path}".startswith(moment) and not swapped:
            swapped.append(path)
            compact(local_store)

    watched = WatchedStore(local_store, swap)
    ledger = read_ledger(watched, OPTIONS)
    assert swapped
    assert [ledger.generation(file) for file in files] == [2, 2, 2, 1, 2, 2, 1, 1, 1, 1, 1, 1]
    swapped.clear()
    land(local_store, files[6:7], 1, at=LATER)
    found = live_uris(watched)
    assert found == Counter(file.uri for file in files)


def test_a_reader_ends_although_records_come_faster_than_it_reads(local_store: Store) -> None:
    """A record that takes nothing but parts that were read, and has made none of them, did not disturb the reader."""
    files = archive(local_store)
    looks = 0

    def before_the_last_look(what: str, path: str) -> None:
        nonlocal looks
        if what == "listed" and path.startswith("transcripts/"):
            looks += 1

    class Slow(WatchedStore):
        def read_range(self, path: str, start: int, stop: int) -> bytes:
            read = super().read_range(path, start, stop)
            if path.startswith("transcripts/"):
                stored.append(path)
                if len(stored) == 7:
                    compact(local_store)
            return read

    stored: list[str] = []
    assert sum(live_uris(Slow(local_store, before_the_last_look)).values()) == len(files) + 4
    assert looks == 7, "listed once"
    assert n_parts(local_store) == 1


@pytest.mark.parametrize("dest", ["local", "moto"], indirect=True)
def test_compactions_at_once(store: Store) -> None:
    files = archive(store)
    with ThreadPoolExecutor(3) as threads:
        done: list[CompactionSummary] = list(threads.map(lambda _: compact(store), range(3)))
    assert_compacted(store, files)
    assert sum(summary.rows_superseded for summary in done) == 4


@pytest.mark.parametrize("dest", ["local", pytest.param("moto", marks=long)], indirect=True)
def test_runs_land_and_die_while_compactions_go_on(
    dest: str, store: Store, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    n_files = 40
    stop = threading.Event()

    def keep_compacting() -> int:
        swaps = 0
        while not stop.is_set():
            done = compact(store)
            swaps += done.parts_before != done.parts_after
        return swaps

    with ThreadPoolExecutor(2) as threads:
        compactors = [threads.submit(keep_compacting) for _ in range(2)]
        try:
            for round_ in range(1):
                runs = [
                    spawn("tests.tasks.landing_run", dest, f"run-{round_}-{n}", str(n_files), str(n + 1))
                    for n in range(2)
                ]
                for at, run in enumerate(runs):
                    assert run.stdin is not None and run.stdout is not None
                    run.stdin.write("go\n")
                    run.stdin.flush()
                    if at == 0:
                        while (line := run.stdout.readline()) and not line.startswith("landing"):
                            pass
                        run.kill()
                for run in runs:
                    run.communicate(timeout=60)
            last = spawn("tests.tasks.landing_run", dest, "last", str(n_files), "0")
            said, errors = last.communicate("go\n", timeout=60)
            assert said.endswith("done\n"), errors
        finally:
            stop.set()
        assert sum(compactor.result(timeout=60) for compactor in compactors) >= 1
    compact(store)
    files = audio_files(n_files)
    assert Counter(row[0] for row in contents(store)["transcripts"]) == Counter(file.uri for file in files)
    assert n_parts(store) == 1
    again = spawn("tests.tasks.landing_run", dest, "again", str(n_files), "0")
    assert "planned 0" in again.communicate("go\n", timeout=60)[0]
