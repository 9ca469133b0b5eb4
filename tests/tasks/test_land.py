"""Landing once: whoever lands, however often, whatever is killed in between."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest

from stt_engine.errors import DestinationRefused
from tasks.batches import batch_id
from tasks.land import land_batch, repair_derived
from tasks.ledger import read_ledger
from tasks.parts import TAIL_BYTES, list_parts, read_columns
from tasks.plan_log import PlanLog
from tasks.rows import from_parquet
from tasks.run_record import Failure, RunRecord, failures, read_record, read_records, save_record
from tasks.storage import Store
from tasks.types import AudioFile, LandingBatch
from tests.long_form import long
from tests.tasks.builders import NOON, OPTIONS, audio_file, audio_files, failed, landed, stamp

DAY = date(2026, 3, 1)
N_FILES = 60


def batch_of(files: Sequence[AudioFile], generation: int = 0, options_hash: str = OPTIONS) -> LandingBatch:
    members = [(file, generation) for file in files]
    return LandingBatch(batch_id(members, options_hash), DAY, options_hash, tuple(files), (generation,) * len(files))


def rows(store: Store, table: str = "transcripts", *columns: str) -> list[tuple[object, ...]]:
    names = columns or ("source_uri", "source_version")
    found: list[tuple[object, ...]] = []
    for part in read_columns(store, list(list_parts(store, table)), names):
        found.extend(zip(*(part[name].to_pylist() for name in names), strict=True))
    return found


def test_a_batch_lands_once_and_the_first_stands(store: Store) -> None:
    batch = batch_of(audio_files(5))
    first = land_batch(store, batch, [landed(file, "first") for file in batch.files], stamp("run-1"))
    assert first.wrote
    assert first.landed_files == batch.files
    assert first.uri == f"{store.uri}/transcripts/ingest_date=2026-03-01/{batch.batch_id}.parquet"
    again = land_batch(store, batch, [landed(file, "second") for file in batch.files], stamp("run-2"))
    assert not again.wrote
    assert again.landed_files == batch.files
    assert {run for (run,) in rows(store, "transcripts", "run_id")} == {"run-1"}
    assert {text for (text,) in rows(store, "transcripts", "text")} == {"first bye"}
    assert len(rows(store)) == 5
    assert len(rows(store, "segments")) == 10
    assert len(rows(store, "words")) == 15


def test_files_without_a_result_get_no_row(store: Store) -> None:
    batch = batch_of(audio_files(4))
    nothing = land_batch(store, batch, [], stamp())
    assert (nothing.uri, nothing.landed_files, nothing.wrote) == (None, (), False)
    assert list(list_parts(store, "transcripts")) == []
    some = land_batch(store, batch, [landed(batch.files[2]), failed(batch.files[0])], stamp())
    assert some.landed_files == (batch.files[0], batch.files[2])
    late = land_batch(store, batch, [landed(file) for file in batch.files], stamp("late"))
    assert late.landed_files == some.landed_files
    assert len(rows(store)) == 2


def test_strangers_and_doubles_are_faults_of_ours(local_store: Store) -> None:
    batch = batch_of(audio_files(2))
    with pytest.raises(ValueError, match="no member"):
        land_batch(local_store, batch, [landed(audio_file(7))], stamp())
    with pytest.raises(ValueError, match="two results"):
        land_batch(local_store, batch, [landed(batch.files[0])] * 2, stamp())
    assert list(local_store.list("transcripts")) == []


def test_transcripts_stay_out_of_the_log(local_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    batch = batch_of(audio_files(1))
    land_batch(local_store, batch, [landed(batch.files[0], "my secret words")], stamp())
    assert batch.batch_id in caplog.text
    assert "secret" not in caplog.text


def test_missing_derived_parts_are_written_again_and_equal(store: Store) -> None:
    batches = [batch_of(audio_files(6)[start : start + 2]) for start in (0, 2, 4)]
    for batch in batches:
        land_batch(store, batch, [landed(file) for file in batch.files], stamp(), transcribed_at=NOON)
    before = {found.path: store.read(found.path) for table in ("segments", "words") for found in store.list(table)}
    assert repair_derived(store) == 0
    lost = [path for path in before if batches[0].batch_id in path or ("words" in path and batches[1].batch_id in path)]
    assert len(lost) == 3
    for path in lost:
        store.delete(path)
    assert repair_derived(store) == 2
    assert {
        found.path: store.read(found.path) for table in ("segments", "words") for found in store.list(table)
    } == before


def test_a_batch_of_failures_has_its_empty_parts(local_store: Store) -> None:
    batch = batch_of(audio_files(2))
    land_batch(local_store, batch, [failed(file) for file in batch.files], stamp())
    assert [len(list(list_parts(local_store, table))) for table in ("transcripts", "segments", "words")] == [1, 1, 1]
    assert rows(local_store, "segments") == rows(local_store, "words") == []


def test_the_ledger_reads_what_landed_under_the_same_options(store: Store) -> None:
    files = audio_files(6)
    land_batch(store, batch_of(files[:3]), [landed(files[0]), failed(files[1])], stamp())
    land_batch(store, batch_of(files[:4], 1), [landed(files[0])], stamp())
    land_batch(store, batch_of(files[4:], options_hash="ffff"), [landed(file) for file in files[4:]], stamp())
    ledger = read_ledger(store, OPTIONS)
    assert [ledger.has(file) for file in files] == [True, True, False, False, False, False]
    assert [ledger.generation(file) for file in files[:3]] == [2, 1, 0]
    assert ledger.generation(replace(files[0], etag="new")) == 2
    assert not ledger.has(replace(files[0], etag="new"))
    assert len(ledger.landed_batches) == 3
    assert read_ledger(store, "ffff").has(files[5])


def test_columns_of_a_large_part_are_read_without_the_rest(store: Store) -> None:
    chance = random.Random(1)
    files = audio_files(40)
    texts = ["".join(chance.choices("abcdefghij가나다라", k=6_000)) for _ in files]
    land_batch(store, batch_of(files), [landed(file, text) for file, text in zip(files, texts, strict=True)], stamp())
    (part,) = list_parts(store, "transcripts")
    assert part.stored.size_bytes > 3 * TAIL_BYTES
    fetched_bytes = 0
    read_range = store.read_range

    def counting(path: str, start: int, stop: int) -> bytes:
        nonlocal fetched_bytes
        fetched_bytes += stop - start
        return read_range(path, start, stop)

    store.read_range = counting  # type: ignore[method-assign]
    assert sorted(rows(store)) == sorted((file.uri, file.version) for file in files)
    assert fetched_bytes < TAIL_BYTES + 16_384
    assert {text for (text,) in rows(store, "transcripts", "text")} == {f"{text} bye" for text in texts}
    whole = from_parquet(store.read(part.stored.path))
    for names in (["segments"], ["status", "warnings"], ["labels", "processing_s"]):
        (table,) = read_columns(store, [part], names)
        assert table.equals(whole.select(names))


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "footer", "page"])
def test_a_damaged_part_is_named(local_store: Store, damage: str) -> None:
    batch = batch_of(audio_files(3))
    land_batch(local_store, batch, [landed(file) for file in batch.files], stamp())
    (part,) = list_parts(local_store, "transcripts")
    whole = local_store.read(part.stored.path)
    broken = {
        "cut": whole[: len(whole) // 2],
        "text": b"these are not the bytes of a part",
        "empty": b"",
        "footer": whole[:-600] + bytes(592) + whole[-8:],
        "page": whole[:40] + bytes([whole[40] ^ 1]) + whole[41:],
    }[damage]
    local_store.replace(part.stored.path, broken)
    with pytest.raises(DestinationRefused, match=batch.batch_id):
        read_ledger(local_store, OPTIONS)
    with pytest.raises(DestinationRefused, match=batch.batch_id):
        land_batch(local_store, batch, [landed(file) for file in batch.files], stamp())


def test_a_run_record_comes_back(store: Store) -> None:
    failure = Failure("s3://c/한국 #1.wav", "v1", "StorageUnavailable", "503", True, "run-1", NOON)
    record = RunRecord("run-1", NOON, NOON + timedelta(hours=1), "s3://c", store.uri, {"language": "ko"}, OPTIONS,
                       {"landed": 3, "rtfx": 12.5}, (failure,), {"nightscribe": "1"})  # fmt: skip
    assert save_record(store, record) == f"{store.uri}/_runs/run-1.json"
    assert read_record(store, "run-1") == record
    save_record(store, replace(record, run_id="run-0", started_at=NOON - timedelta(days=1), ended_at=None))
    assert [found.run_id for found in read_records(store)] == ["run-0", "run-1"]
    assert read_record(store, "run-2") is None
    store.replace("_runs/run-3.json", b"{")
    with pytest.raises(DestinationRefused, match=r"run-3\.json"):
        read_records(store)


def test_failures_are_those_of_today(store: Store) -> None:
    files = audio_files(6)
    gone_bad, mended, left, left_then_landed, left_then_failed, fine = files

    def land(file: AudioFile, bad: bool, hours: int, generation: int = 0) -> None:
        result = failed(file) if bad else landed(file)
        moment = NOON + timedelta(hours=hours)
        land_batch(store, batch_of([file], generation), [result], stamp(f"run-{hours}"), transcribed_at=moment)

    def leave(run_id: str, hours: int, *left_files: AudioFile) -> None:
        moment = NOON + timedelta(hours=hours)
        entries = tuple(Failure(f.uri, f.version, "WorkerDied", "killed", True, run_id, moment) for f in left_files)
        save_record(store, RunRecord(run_id, moment, moment, "s", "d", {}, OPTIONS, {}, entries))

    land(gone_bad, True, 1)
    land(mended, True, 1)
    land(replace(mended, etag="new"), False, 2, generation=1)
    land(fine, False, 1)
    leave("run-1", 1, left, left_then_landed, left_then_failed)
    leave("run-2", 2, left)
    land(left_then_landed, False, 3)
    land(left_then_failed, True, 3)
    found = failures(store)
    assert [(f.uri, f.retryable, f.run_id, f.error_type) for f in found] == [
        (left_then_failed.uri, False, "run-3", "NotAudio"),
        (left.uri, True, "run-2", "WorkerDied"),
        (gone_bad.uri, False, "run-1", "NotAudio"),
    ]
    assert all(failure.what_to_do for failure in found)


@pytest.mark.parametrize("dest", ["local", pytest.param("ceph", marks=[pytest.mark.ceph, long])], indirect=True)
def test_runs_killed_at_any_step_leave_one_row_per_file(
    dest: str, store: Store, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    """Rounds of runs over the same files at once, most killed between two steps; then one that is left alone."""
    chance = random.Random(20260301)
    killed = 0
    for round_ in range(3):
        runs = [spawn("tests.tasks.landing_run", dest, f"run-{round_}-{n}", str(N_FILES), str(n + 1)) for n in range(3)]
        steps = [chance.choice([1, 2, 3, 4, 6]) for _ in runs]
        for run in runs:
            assert run.stdout is not None
            assert run.stdin is not None
            assert run.stdout.readline() == "ready\n", run.communicate()[1]
        for run in runs:
            assert run.stdin is not None
            run.stdin.write("go\n")
            run.stdin.flush()
        for run, n_steps in zip(runs, steps, strict=True):
            assert run.stdout is not None
            lines = [run.stdout.readline() for _ in range(n_steps)]
            if lines[-1] not in ("", "done\n"):
                run.kill()
                killed += 1
            run.wait()
        counts = Counter(rows(store))
        assert set(counts.values()) <= {1}
    assert killed >= 3
    last = spawn("tests.tasks.landing_run", dest, "last", str(N_FILES), "0")
    said, errors = last.communicate("go\n", timeout=60)
    assert said.endswith("done\n"), errors
    assert Counter(rows(store)) == Counter((file.uri, file.version) for file in audio_files(N_FILES))
    good = [file_id for file_id, status in rows(store, "transcripts", "file_id", "status") if status == "landed"]
    assert Counter(file_id for (file_id,) in rows(store, "segments", "file_id")) == Counter(good * 2)
    assert Counter(file_id for (file_id,) in rows(store, "words", "file_id")) == Counter(good * 3)
    again = spawn("tests.tasks.landing_run", dest, "again", str(N_FILES), "0")
    assert "planned 0" in again.communicate("go\n", timeout=60)[0]
    assert PlanLog(store).read().open_plans == ()
