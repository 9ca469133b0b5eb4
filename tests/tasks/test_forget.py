"""Forgetting a recording: afterwards nothing below DEST holds its text or its name, and nothing else is touched."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stt_engine.errors import UsageError
from tasks.compact import compact, tidy
from tasks.forget import forget
from tasks.land import land_batch
from tasks.ledger import read_ledger
from tasks.liveness import Heartbeat, RunIdentity
from tasks.plan import make_plan
from tasks.plan_log import PlanLog, mark_done
from tasks.run_record import Failure, RunRecord, read_record, save_record
from tasks.storage import Store, open_store
from tests.tasks.builders import NOON, OPTIONS, audio_files, landed, stamp
from tests.tasks.compacting import Killed, WatchedStore, contents, land, land_nights, live_uris

FILES = audio_files(9)
LOST = FILES[4]
SECRET = "hello 안녕 1004"
LEFT = Counter(file.uri for file in FILES if file != LOST)
CHANGES = ("create", "replace", "delete")


@pytest.fixture(autouse=True)
def spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "spools"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def dead_run(name: str = "dead") -> RunIdentity:
    return replace(RunIdentity.here(name), process_started="1")


def archive(store: Store) -> None:
    """The recording landed twice, planned by a run that died, failed once, and in a report."""
    land_nights(store, FILES)
    land(store, [LOST], 1, at=NOON + timedelta(days=9), note=" redone")
    run = RunIdentity.here("settled")
    with Heartbeat(store, run):
        plan = make_plan(store, [replace(LOST, etag="v2"), FILES[5]], run=run, options_hash=OPTIONS, force=True)
        mark_done(store, plan)
    make_plan(store, [replace(LOST, etag="v3"), audio_files(11)[10]], run=dead_run(), options_hash=OPTIONS)
    entries = tuple(
        Failure(file.uri, "v0", "WorkerDied", f"{file.uri}: killed", True, "run-1", NOON) for file in (LOST, FILES[5])
    )
    save_record(
        store, RunRecord("run-1", NOON, NOON, LOST.uri, store.uri, {}, OPTIONS, {"failed_retryable": 2}, entries)
    )
    store.replace("_reports/run-1.html", f"<td>{LOST.key}</td>".encode())
    store.replace("_reports/run-2.html", b"<td>another</td>")


def everything(store: Store) -> Iterator[tuple[str, str]]:
    """Path and content of each object, as text; of Parquet the decoded rows and all metadata."""
    for stored in store.list(""):
        payload = store.read(stored.path)
        text = payload.decode(errors="replace")
        if payload[:4] == b"PAR1":
            file = pq.ParquetFile(io.BytesIO(payload))
            text += str(file.read().to_pylist()) + str(file.metadata.metadata)
        yield stored.path, text


def assert_forgotten(store: Store) -> None:
    for path, text in everything(store):
        assert LOST.uri not in text, path
        assert LOST.key not in text, path
        assert SECRET not in text, path
        assert LOST.file_id not in text, path


def test_nothing_of_it_is_left_and_the_rest_is_untouched(store: Store, spools: Path) -> None:
    archive(store)
    before = contents(store)
    assert any(SECRET in text for _, text in everything(store))
    for name in ("nightscribe-spool-other-0123abcd-1", "nightscribe-spool-more-0123abcd-2"):
        (spools / name).mkdir()
        (spools / name / f"{LOST.file_id}.pcm").write_bytes(b"samples")
        (spools / name / f"{FILES[5].file_id}.pcm").write_bytes(b"samples")

    done = forget(store, LOST.uri)
    assert (done.transcripts, done.segments, done.words) == (2, 4, 6)
    assert (done.plans, done.run_records, done.reports, done.spooled) == (2, 1, 1, 2)
    assert "erased 2 rows of transcripts, 4 of segments, 6 of words" in done.line
    assert "still in SOURCE" in done.line

    assert_forgotten(store)
    assert contents(store) == {table: [row for row in rows if row[0] != LOST.uri] for table, rows in before.items()}
    assert live_uris(store) == LEFT
    record = read_record(store, "run-1")
    assert record is not None
    assert (record.source, [failure.uri for failure in record.failures]) == ("[forgotten]", [FILES[5].uri])
    assert store.stat("_reports/run-2.html") is not None
    assert len(list(spools.rglob("*.pcm"))) == 2
    with pytest.raises(UsageError, match="nowhere in DEST"):
        forget(store, LOST.uri)
    assert forget(store, FILES[5].uri).transcripts == 1


def test_after_a_compaction_it_is_taken_out_of_what_that_remembers(store: Store) -> None:
    archive(store)
    compact(store)
    assert read_ledger(store, OPTIONS).generation(LOST) == 2
    done = forget(store, LOST.uri)
    assert (done.transcripts, done.segments, done.words) == (1, 2, 3)
    assert_forgotten(store)
    assert read_ledger(store, OPTIONS).generation(LOST) == 0
    assert live_uris(store) == LEFT
    compact(store)
    assert live_uris(store) == LEFT
    assert_forgotten(store)


def test_a_uri_must_be_exactly_that_of_the_table(local_store: Store) -> None:
    land_nights(local_store, FILES)
    for uri in (LOST.uri[:-1], LOST.uri + "x", LOST.uri.replace("#", "%23"), LOST.key, "", "s3://calls"):
        with pytest.raises(UsageError, match="nowhere in DEST"):
            forget(local_store, uri)
    assert live_uris(local_store) == Counter(file.uri for file in FILES)


def test_a_recording_that_is_in_work_is_refused(local_store: Store) -> None:
    land_nights(local_store, FILES)
    run = RunIdentity.here("at-work")
    with Heartbeat(local_store, run):
        plan = make_plan(local_store, [LOST], run=run, options_hash=OPTIONS, force=True)
        with pytest.raises(UsageError, match="run at-work is working on"):
            forget(local_store, LOST.uri)
        assert forget(local_store, FILES[0].uri).transcripts == 1
        mark_done(local_store, plan)
    assert forget(local_store, LOST.uri).transcripts == 1


def test_what_is_still_in_source_is_transcribed_and_landed_again(local_store: Store) -> None:
    """Its batch has the members that it had before, so it must not get the name again, which is retired."""
    land(local_store, [LOST])
    forget(local_store, LOST.uri)
    run = RunIdentity.here("next")
    with Heartbeat(local_store, run):
        tidy(local_store, run)
        plan = make_plan(local_store, [LOST], run=run, options_hash=OPTIONS)
        (batch,) = plan.batches
        part = land_batch(local_store, batch, [landed(LOST)], stamp())
        assert part.wrote
        mark_done(local_store, plan)
    tidy(local_store, run)
    assert live_uris(local_store) == Counter([LOST.uri])


def test_a_dead_run_is_adopted_without_it_under_the_same_name(local_store: Store) -> None:
    plan = make_plan(local_store, FILES[3:6], run=dead_run(), options_hash=OPTIONS)
    alone = make_plan(local_store, [replace(LOST, etag="v2")], run=dead_run("dead-2"), options_hash=OPTIONS)
    assert alone.batches
    local_store.replace("_runs/run-0.json", b"{}")
    assert forget(local_store, LOST.uri).plans == 2
    run = RunIdentity.here("next")
    with Heartbeat(local_store, run):
        adopted = make_plan(local_store, [FILES[3], FILES[5]], run=run, options_hash=OPTIONS)
        assert [batch.batch_id for batch in adopted.batches] == [plan.batches[0].batch_id]
        assert adopted.files == (FILES[3], FILES[5])
        land_batch(local_store, adopted.batches[0], [landed(file) for file in adopted.files], stamp())
        mark_done(local_store, adopted)
    assert make_plan(local_store, [FILES[3]], run=run, options_hash=OPTIONS).batches == ()
    assert PlanLog(local_store).read().open_plans == ()
    assert_forgotten(local_store)


def test_killed_before_every_change_and_run_again(local_store: Store, tmp_path: Path) -> None:
    archive(local_store)
    compact(local_store)
    land(local_store, [LOST], 2, at=NOON + timedelta(days=10))
    steps = 0

    def count(what: str, path: str) -> None:
        nonlocal steps
        steps += what in CHANGES

    shutil.copytree(local_store.uri, tmp_path / "counted")
    forget(WatchedStore(open_store(str(tmp_path / "counted")), count), LOST.uri)
    assert steps > 15
    for at in range(steps):
        left = at

        def kill(what: str, path: str) -> None:
            nonlocal left
            left -= what in CHANGES
            if left < 0:
                raise Killed

        place = tmp_path / f"killed-{at}"
        shutil.copytree(local_store.uri, place)
        store = open_store(str(place))
        with pytest.raises(Killed):
            forget(WatchedStore(store, kill), LOST.uri)
        assert {uri for uri, n in live_uris(store).items() if n == 1 or uri == LOST.uri} >= set(LEFT)
        try:
            forget(store, LOST.uri)
        except UsageError as error:
            assert "erased already" in str(error)  # noqa: PT017 - killed after the last thing that named it
        assert_forgotten(store)
        assert live_uris(store) == LEFT
        shutil.rmtree(place)


def test_beside_a_compaction(local_store: Store) -> None:
    """A whole compaction goes on before each of its steps that changes something, and it before those of one."""
    archive(local_store)
    busy = False

    def other(what: str, path: str) -> None:
        nonlocal busy
        if what in CHANGES and not busy:
            busy = True
            compact(local_store)
            busy = False

    forget(WatchedStore(local_store, other), LOST.uri)
    assert live_uris(local_store) == LEFT
    assert_forgotten(local_store)

    land(local_store, [LOST], at=NOON + timedelta(days=20))
    done = []

    def forgets(what: str, path: str) -> None:
        if what == "create" and path.startswith("transcripts/") and not done:
            done.append(forget(local_store, LOST.uri))

    compact(WatchedStore(local_store, forgets))
    assert done[0].transcripts == 1
    assert live_uris(local_store) == LEFT
    assert_forgotten(local_store)
