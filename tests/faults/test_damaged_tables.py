"""A DEST in which something is damaged: what the next night needs is named and refused before anything is done, what it
does not need costs nothing; and once it is mended as the message says, every file has one row."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from stt_engine.errors import DestinationRefused
from tasks.compact import compact, tidy, upkeep_identity
from tasks.discover import discover
from tasks.land import land_batch, repair_derived
from tasks.liveness import Heartbeat, RunIdentity
from tasks.plan import make_plan
from tasks.plan_log import PlanLog, mark_done
from tasks.rows import from_parquet, to_parquet
from tasks.run_record import RunRecord, failures, save_record
from tasks.storage import Store, open_store
from tests.engine.encoding import wav
from tests.flows.conftest import CommandLine
from tests.flows.tables import rows
from tests.tasks.builders import OPTIONS, landed, stamp

FIRST_NIGHT, SECOND_NIGHT = ("a.wav", "b.wav", "c.wav"), ("d.wav", "e.wav")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "calls"
    folder.mkdir()
    for name in FIRST_NIGHT:
        (folder / name).write_bytes(wav(bytes(8_000)))
    return folder


@pytest.fixture
def night(source: Path, store: Store) -> Callable[[], int]:
    """Claims and lands as a run does, whatever its files say; how many they were."""

    def run() -> int:
        identity = upkeep_identity("night")
        with Heartbeat(store, identity):
            tidy(store, identity)
            repair_derived(store)
            plan = make_plan(store, discover(str(source)), run=identity, options_hash=OPTIONS)
            for batch in plan.batches:
                land_batch(store, batch, [landed(file) for file in batch.files], stamp())
            mark_done(store, plan)
        return len(plan.files)

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "tables"))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def as_table(payload: bytes, change: Callable[[pa.Table], pa.Table]) -> bytes:
    return to_parquet(change(from_parquet(payload)))


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "zeroed": lambda whole: bytes(len(whole)),
    "empty": lambda whole: b"",
    "foreign bytes": lambda whole: b"\x89PNG\r\n\x1a\n" + whole[8:-4] + b"IEND",
    "foreign table": lambda whole: to_parquet(pa.table({"city": ["Seoul"], "population": [9_400_000]})),
    "numbers for names": lambda whole: as_table(whole, lambda t: _with(t, "source_uri", pa.array(range(len(t))))),
    "no names": lambda whole: as_table(whole, lambda t: _with(t, "source_uri", pa.nulls(len(t), pa.string()))),
    "no options": lambda whole: as_table(whole, lambda t: _with(t, "options_hash", pa.nulls(len(t), pa.string()))),
    "numbers for options": lambda whole: as_table(whole, lambda t: _with(t, "options_hash", pa.array(range(len(t))))),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("mended", ["restored", "moved away"])
def test_a_damaged_part_stops_the_night_before_it_begins(
    damage: str, mended: str, source: Path, store: Store, night: Callable[[], int]
) -> None:
    assert night() == len(FIRST_NIGHT)
    part = only(Path(store.uri), "transcripts/*/*.parquet")
    whole = part.read_bytes()
    part.write_bytes(DAMAGE[damage](whole))
    for name in SECOND_NIGHT:
        (source / name).write_bytes(wav(bytes(8_000)))
    before = files_below(Path(store.uri))
    with pytest.raises(DestinationRefused, match=f"{part.stem}.*no readable part") as refused:
        night()
    assert "restore it, or move it out of DEST" in str(refused.value)
    assert files_below(Path(store.uri)) == before, "something was planned or landed beside a part that nobody can read"
    if "options" not in damage:  # whose rows they are is all that compaction asks
        with pytest.raises(DestinationRefused, match=part.stem):
            compact(store)
    assert part.read_bytes() == DAMAGE[damage](whole), "compaction took away what it could not read"

    if mended == "restored":
        part.write_bytes(whole)
        assert night() == len(SECOND_NIGHT)
    else:
        part.rename(source.parent / "moved.parquet")
        assert night() == len(FIRST_NIGHT) + len(SECOND_NIGHT)
    assert set(rows(store.uri)) == {*FIRST_NIGHT, *SECOND_NIGHT}


def test_a_foreign_table_under_a_batchs_own_name_is_not_taken_for_its_rows(source: Path, store: Store) -> None:
    """It appears after planning, so that landing is the first to meet it."""
    run = RunIdentity.here("one")
    plan = make_plan(store, discover(str(source)), run=run, options_hash=OPTIONS, now=datetime.now(UTC))
    (batch,) = plan.batches
    path = f"transcripts/ingest_date={batch.ingest_date}/{batch.batch_id}.parquet"
    foreign = DAMAGE["foreign table"](b"")
    store.create_exclusive(path, foreign)
    with pytest.raises(DestinationRefused, match=batch.batch_id):
        land_batch(store, batch, [landed(file) for file in batch.files], stamp())
    assert store.read(path) == foreign
    with pytest.raises(DestinationRefused, match=batch.batch_id):
        repair_derived(store)
    assert not list(Path(store.uri).glob("segments/*/*"))


@pytest.mark.parametrize("damage", ["cut", "zeroed", "foreign table"])
@pytest.mark.parametrize("table", ["segments", "words"])
def test_a_damaged_derived_part_stops_nobody_and_is_derived_again(
    table: str, damage: str, store: Store, night: Callable[[], int]
) -> None:
    assert night() == len(FIRST_NIGHT)
    part = only(Path(store.uri), f"{table}/*/*.parquet")
    whole = part.read_bytes()
    part.write_bytes(DAMAGE[damage](whole))
    assert night() == 0
    part.unlink()
    assert night() == 0
    assert part.read_bytes() == whole


def test_damage_in_a_text_stops_no_night_but_its_compaction(
    source: Path, store: Store, night: Callable[[], int]
) -> None:
    """The ledger reads three columns; whoever reads the others is told by the page's checksum."""
    assert night() == len(FIRST_NIGHT)
    part = only(Path(store.uri), "transcripts/*/*.parquet")
    whole = part.read_bytes()
    at = whole.index(b"pcm_mulaw")
    part.write_bytes(whole[:at] + b"PCM" + whole[at + 3 :])
    (source / "d.wav").write_bytes(wav(bytes(8_000)))
    assert night() == 1
    with pytest.raises(DestinationRefused, match=part.stem):
        compact(store)
    assert part.exists() and len(list(Path(store.uri).glob("transcripts/*/*.parquet"))) == 2
    part.write_bytes(whole)
    compact(store)
    assert set(rows(store.uri)) == {*FIRST_NIGHT, "d.wav"}


DOCUMENTS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "zeroed": lambda whole: bytes(len(whole)),
    "foreign bytes": lambda whole: b"\x89PNG\r\n\x1a\n" + whole[8:],
    "a list": lambda whole: b"[]",
    "a text": lambda whole: b'"format"',
    "a number": lambda whole: b"7",
    "nothing in it": lambda whole: b"{}",
    "other types": lambda whole: json.dumps(dict.fromkeys(json.loads(whole), 1)).encode(),
}


@pytest.mark.parametrize("damage", DOCUMENTS)
def test_a_damaged_plan_stops_the_night_until_it_is_gone(
    damage: str, source: Path, store: Store, night: Callable[[], int], tmp_path: Path
) -> None:
    """The plan of a run that was killed with one of two batches landed, the one that has to be told apart."""
    run = RunIdentity.here("killed")
    plan = make_plan(store, discover(str(source)), run=run, options_hash=OPTIONS, files_per_batch=2)
    land_batch(store, plan.batches[0], [landed(file) for file in plan.batches[0].files], stamp())
    entry = Path(store.uri) / "_plans/00000001.json"
    entry.write_bytes(DOCUMENTS[damage](entry.read_bytes()))
    before = files_below(Path(store.uri))
    with pytest.raises(DestinationRefused, match=r"00000001\.json is no readable plan"):
        night()
    assert files_below(Path(store.uri)) == before
    entry.unlink()
    assert night() == 1
    assert set(rows(store.uri)) == set(FIRST_NIGHT)


@pytest.mark.parametrize("damage", [*DOCUMENTS, "zero bytes too many"])
def test_a_damaged_mark_stops_the_night_until_it_is_gone(
    damage: str, source: Path, store: Store, night: Callable[[], int]
) -> None:
    """Of a plan with a batch in doubt: the part was created, and nobody heard of it."""
    run = RunIdentity.here("in doubt")
    plan = make_plan(store, discover(str(source)), run=run, options_hash=OPTIONS, files_per_batch=2)
    land_batch(store, plan.batches[0], [landed(file) for file in plan.batches[0].files], stamp())
    mark_done(store, plan, unsettled=[batch.batch_id for batch in plan.batches])
    mark = Path(store.uri) / "_plans/00000001.done"
    mark.write_bytes(DOCUMENTS.get(damage, lambda whole: whole + bytes(4))(mark.read_bytes()))
    with pytest.raises(DestinationRefused, match=r"00000001\.done is no readable mark.*delete it"):
        night()
    mark.unlink()
    # The run of that plan is this very process, which lives; a night knows the dead by their processes.
    ghost = json.loads((Path(store.uri) / "_plans/00000001.json").read_bytes())
    ghost["run"]["process_started"] = "0"
    (Path(store.uri) / "_plans/00000001.json").write_text(json.dumps(ghost))
    assert night() == 1
    assert set(rows(store.uri)) == set(FIRST_NIGHT)
    assert night() == 0
    assert PlanLog(store).read().open_plans == ()


@pytest.mark.parametrize("damage", DOCUMENTS)
def test_a_damaged_run_record_stops_no_night_and_is_named_to_who_asks(
    damage: str, store: Store, night: Callable[[], int]
) -> None:
    assert night() == len(FIRST_NIGHT)
    now = datetime.now(UTC)
    save_record(store, RunRecord("one", now, now, "calls", store.uri, {}, OPTIONS, {"rtfx": 1.0}))
    record = Path(store.uri) / "_runs/one.json"
    record.write_bytes(DOCUMENTS[damage](record.read_bytes()))
    assert night() == 0
    with pytest.raises(DestinationRefused, match=r"one\.json is no readable run record; delete it"):
        failures(store)
    record.unlink()
    assert failures(store) == []


@pytest.mark.parametrize("damage", DOCUMENTS)
def test_a_damaged_record_of_a_compaction_stops_everybody(
    damage: str, source: Path, store: Store, night: Callable[[], int]
) -> None:
    """It says which of two parts counts, so nobody may guess."""
    night()
    (source / "d.wav").write_bytes(wav(bytes(8_000)))
    night()
    compact(store)
    record = only(Path(store.uri), "_compactions/*.json")
    whole = record.read_bytes()
    record.write_bytes(DOCUMENTS[damage](whole))
    before = files_below(Path(store.uri))
    for attempt in (night, lambda: compact(store), lambda: failures(store)):
        with pytest.raises(DestinationRefused, match=f"{record.name} is no readable record of a compaction"):
            attempt()
    assert files_below(Path(store.uri)) == before
    record.write_bytes(whole)
    assert night() == 0


@pytest.mark.timeout(240)
def test_the_real_run_says_it_in_one_line(prefect_url: str, source: Path, store: Store) -> None:
    """Under a Prefect server, where the flow itself is what finds it."""
    plan = make_plan(store, discover(str(source)), run=RunIdentity.here("killed"), options_hash=OPTIONS)
    (batch,) = plan.batches
    land_batch(store, batch, [landed(file) for file in batch.files], stamp())
    part, entry = only(Path(store.uri), "transcripts/*/*.parquet"), Path(store.uri) / "_plans/00000001.json"
    for damaged in (entry, part):  # in the order in which a run reads them
        damaged.write_bytes(damaged.read_bytes()[:-50])
    for damaged in (entry, part):
        refused = CommandLine(prefect_url)("run", source, store.uri, "--model", "fixture", "--device", "cpu")
        assert refused.status == 2, refused.err
        assert "Traceback" not in refused.err
        (line,) = {line for line in refused.err.splitlines() if line.startswith("nightscribe: ")}
        assert str(damaged) in line and "no readable" in line and "restore it, or" in line
        damaged.unlink()
    assert not list(Path(store.uri).glob("_runs/*.json")), "a run that was refused left a record"
