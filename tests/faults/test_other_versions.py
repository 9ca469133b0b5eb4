"""Tables of yesterday read on, today and under a schema of tomorrow; tables of tomorrow are refused in one line.

`tests/data/schema_1` is frozen: what a later version makes of it is what happens to every DEST there is.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stt_engine.errors import DestinationRefused
from tasks import schema
from tasks.compact import compact
from tasks.forget import forget
from tasks.land import land_batch, repair_derived
from tasks.liveness import RunIdentity
from tasks.plan import make_plan
from tasks.plan_log import mark_done
from tasks.rows import from_parquet, to_parquet
from tasks.run_record import failures, read_records
from tasks.storage import Store, open_store
from tasks.types import AudioFile
from tests.flows.conftest import CommandLine
from tests.tasks.builders import NOON, OPTIONS, audio_files, landed, stamp
from tests.tasks.compacting import contents
from tests.tasks.views import latest

FROZEN = Path(__file__).parents[1] / "data" / "schema_1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(FROZEN, tmp_path / "tables")
    return open_store(str(tmp_path / "tables"))


@pytest.fixture(params=["today", "tomorrow"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tomorrow has a column more, and another number."""
    if request.param == "tomorrow":
        tomorrow = schema.TRANSCRIPTS.append(pa.field("mood", pa.string(), metadata={"description": "of the caller"}))
        today, its_number = schema.TRANSCRIPTS, schema.SCHEMA_VERSION + 1
        for module in [found for name, found in sys.modules.items() if name.startswith("tasks.")]:
            if getattr(module, "TRANSCRIPTS", None) is today:
                monkeypatch.setattr(module, "TRANSCRIPTS", tomorrow)
            if hasattr(module, "SCHEMA_VERSION"):
                monkeypatch.setattr(module, "SCHEMA_VERSION", its_number)
    return str(request.param)


def next_night(store: Store, files: list[AudioFile]) -> list[str]:
    """What it did, by uri."""
    plan = make_plan(store, files, run=RunIdentity.here("next"), options_hash=OPTIONS, now=NOON + timedelta(days=1))
    for batch in plan.batches:
        results = [landed(file) for file in batch.files]
        land_batch(store, batch, results, stamp("next"), transcribed_at=NOON + timedelta(days=1))
    mark_done(store, plan)
    return [file.uri for file in plan.files]


def test_the_next_night_does_only_what_is_new(store: Store, version: str) -> None:
    files = audio_files(5)
    assert next_night(store, files) == [file.uri for file in files[3:]]
    assert next_night(store, files) == []
    views = {table: latest(store.uri, table) for table in ("transcripts", "segments", "words")}
    assert [row["source_uri"] for row in sorted(views["transcripts"], key=lambda row: row["size_bytes"])] == [
        file.uri for file in files
    ]
    assert {name: len(rows) for name, rows in views.items()} == {"transcripts": 5, "segments": 8, "words": 12}
    written = {row["schema_version"] for row in views["transcripts"]}
    assert written == ({1} if version == "today" else {1, 2})


def test_what_failed_and_what_ran_is_still_known(store: Store, version: str) -> None:
    found = {failure.uri: (failure.error_type, failure.retryable) for failure in failures(store)}
    assert found == {
        audio_files(3)[2].uri: ("NotAudio", False),
        "s3://calls/left.wav": ("StorageUnavailable", True),
    }
    (record,) = read_records(store)
    assert (record.run_id, record.counts["landed"]) == ("night", 2.0)


def test_it_compacts_with_newer_parts_and_keeps_every_row(store: Store, version: str) -> None:
    next_night(store, audio_files(5))
    before = contents(store)
    assert compact(store).parts_after == 1
    assert contents(store) == before
    (part,) = Path(store.uri).glob("transcripts/*/*.parquet")
    found = pq.read_table(part)
    assert sorted(set(found["schema_version"].to_pylist())) == ([1] if version == "today" else [1, 2])
    assert ("mood" in found.schema.names) == (version == "tomorrow")
    assert next_night(store, audio_files(5)) == []


def test_its_derived_parts_are_derived_again(store: Store, version: str) -> None:
    wanted = contents(store)
    for table in ("segments", "words"):
        shutil.rmtree(Path(store.uri) / table)
    assert repair_derived(store) == 1
    assert contents(store) == wanted


def test_a_recording_is_forgotten_out_of_it(store: Store, version: str) -> None:
    file = audio_files(1)[0]
    done = forget(store, file.uri)
    assert (done.transcripts, done.segments, done.words, done.plans) == (1, 2, 3, 1)
    assert file.uri not in {row[0] for rows in contents(store).values() for row in rows}
    assert len(contents(store)["transcripts"]) == 2


def test_a_column_that_changes_or_goes_raises_the_schema_version() -> None:
    if schema.SCHEMA_VERSION > 1:
        pytest.skip("the schema has changed since; freeze its first tables beside those of version 1")
    for table, today in schema.TABLES.items():
        (part,) = FROZEN.glob(f"{table}/*/*.parquet")
        frozen = pq.read_schema(part)
        assert frozen.metadata[b"nightscribe.schema_version"] == b"1"
        for field in frozen:
            assert today.field(field.name).type == field.type, f"{table}.{field.name}: raise SCHEMA_VERSION"
        for name in set(today.names) - set(frozen.names):
            assert today.field(name).nullable, f"{table}.{name}: older parts have no value for it"


def of_tomorrow(payload: bytes) -> bytes:
    table = from_parquet(payload)
    version = str(schema.SCHEMA_VERSION + 1).encode()
    return to_parquet(table.replace_schema_metadata(table.schema.metadata | {b"nightscribe.schema_version": version}))


def next_format(payload: bytes) -> bytes:
    document = json.loads(payload)
    return json.dumps(document | {"format": document["format"] + 1, "batches": "of another shape"}).encode()


NEWER: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "part": ("transcripts/*/*.parquet", of_tomorrow, "schema version 2, this one knows 1"),
    "plan": ("_plans/*.json", next_format, "format 2, this one knows 1"),
    "compaction": ("_compactions/*.json", next_format, "format 2, this one knows 1"),
}


@pytest.mark.parametrize("what", NEWER)
def test_what_a_newer_version_wrote_is_refused(what: str, store: Store) -> None:
    pattern, change, versions = NEWER[what]
    root = Path(store.uri)
    if what == "compaction":
        next_night(store, audio_files(5))
        compact(store)
    (root / "_plans/00000001.done").unlink()  # a plan that is done is not read
    (path,) = root.glob(pattern) if what != "plan" else [root / "_plans/00000001.json"]
    path.write_bytes(change(path.read_bytes()))
    (root / "_runs/next.alive").unlink(missing_ok=True)
    before = {found: found.read_bytes() for found in root.rglob("*") if found.is_file()}
    attempts: list[Callable[[], object]] = [lambda: next_night(store, audio_files(6)), lambda: compact(store)]
    if what != "plan":
        attempts += [lambda: failures(store)]
    for attempt in attempts:
        with pytest.raises(DestinationRefused) as refused:
            attempt()
        assert str(refused.value) == (
            f"{path} was written by a newer Nightscribe ({versions}); upgrade this installation, then run again"
        )
        (root / "_runs/next.alive").unlink(missing_ok=True)
    assert {found: found.read_bytes() for found in root.rglob("*") if found.is_file()} == before


def test_landing_beside_a_newer_part_of_the_same_name_is_refused(store: Store) -> None:
    (path,) = Path(store.uri).glob("transcripts/*/*.parquet")
    path.write_bytes(of_tomorrow(path.read_bytes()))
    (Path(store.uri) / "_plans/00000001.done").unlink()
    shutil.rmtree(Path(store.uri) / "segments")
    with pytest.raises(DestinationRefused, match="newer Nightscribe"):
        repair_derived(store)
    assert not list(Path(store.uri).glob("segments/*/*"))


def test_the_command_line_refuses_it_in_one_line(store: Store, samples: Path) -> None:
    (path,) = Path(store.uri).glob("transcripts/*/*.parquet")
    path.write_bytes(of_tomorrow(path.read_bytes()))
    said = CommandLine(None)("run", samples, store.uri, "--model", "fixture", "--device", "cpu", "--dry-run")
    assert said.status == 2
    (line,) = [line for line in said.err.splitlines() if line]
    assert line == (
        f"nightscribe: {path} was written by a newer Nightscribe (schema version 2, this one knows 1); upgrade this "
        "installation, then run again"
    )
