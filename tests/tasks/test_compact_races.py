"""Those who stand still while their part is compacted away, and go on; dead runs; answers that are lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

import tasks.compact
from tasks.compact import compact, tidy
from tasks.compact_log import CompactionLog, merged_away
from tasks.compact_merge import carry_out
from tasks.land import land_batch, repair_derived
from tasks.ledger import read_ledger
from tasks.liveness import Heartbeat, RunIdentity
from tasks.plan import make_plan
from tasks.plan_log import PlanLog, mark_done
from tasks.rows import to_parquet, transcripts_table
from tasks.storage import Store, open_store
from tasks.types import AudioFile, LandingBatch, NightPlan
from tests.tasks.builders import NOON, OPTIONS, audio_files, landed, stamp
from tests.tasks.compacting import Killed, WatchedStore, contents, land, land_nights, live_uris, n_parts

FILES = audio_files(12)
ONCE = Counter(file.uri for file in FILES)


def plan_of(store: Store, files: list[AudioFile], run: RunIdentity) -> NightPlan:
    return make_plan(store, files, run=run, options_hash=OPTIONS)


def land_planned(store: Store, batch: LandingBatch, note: str = "") -> object:
    return land_batch(store, batch, [landed(file, f"hello{note}") for file in batch.files], stamp())


def dead_run() -> RunIdentity:
    """Of this machine, and surely gone."""
    return replace(RunIdentity.here("dead"), process_started="1")


def rows_of(store: Store) -> Counter[object]:
    return Counter(row[0] for row in contents(store)["transcripts"])


def assert_flat_tables_match(store: Store) -> None:
    found = contents(store)
    truth = {(row[0], row[2]) for row in found["transcripts"] if row[3] is not None}
    for table, per_file in (("segments", 2), ("words", 3)):
        assert Counter((row[0], row[1]) for row in found[table]) == dict.fromkeys(truth, per_file)


def test_parts_of_a_run_at_work_are_left_alone_until_it_is_done(store: Store) -> None:
    land_nights(store, FILES[:6], per_night=2)
    run = RunIdentity.here("alive")
    with Heartbeat(store, run):
        plan = plan_of(store, FILES, run)
        (batch,) = plan.batches
        land_planned(store, batch)
        done = compact(store)
        assert (done.parts_before, done.parts_after, done.parts_left_alone) == (4, 2, 1)
        assert "1 parts left alone, of runs at work" in done.line
        # The answer to its put was lost: it tries again, and meets its own part.
        again = land_planned(store, batch, " again")
        assert (again.wrote, again.landed_files) == (False, batch.files)  # type: ignore[attr-defined]
        mark_done(store, plan)
    assert compact(store).parts_after == 1
    assert rows_of(store) == ONCE


def test_a_batch_of_a_dead_run_that_is_compacted_away_is_not_landed_again(store: Store) -> None:
    """Its plan stays open, with another batch that never landed: only that one is adopted."""
    plan = make_plan(store, FILES, run=dead_run(), options_hash=OPTIONS, files_per_batch=6)
    first, second = plan.batches
    land_planned(store, first)
    land(store, FILES[:2], 1, at=NOON + timedelta(days=900))  # a redo, so that something is merged
    assert compact(store).parts_after == 1
    assert first.batch_id in read_ledger(store, OPTIONS).landed_batches

    run = RunIdentity.here("next")
    with Heartbeat(store, run):
        adopted = plan_of(store, FILES, run)
        assert adopted.batches == (second,)
        land_planned(store, second)
        mark_done(store, adopted)
    assert compact(store).parts_after == 1
    assert rows_of(store) == ONCE
    last = plan_of(store, FILES, RunIdentity.here("last"))
    assert last.batches == ()
    assert PlanLog(store).read().open_plans == ()


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_stood_still_lands_a_batch_that_is_compacted_away(local_store: Store, killed: bool) -> None:
    """It was taken for dead, adopted and compacted. It takes its part back, or the next run does."""
    plan = plan_of(local_store, FILES[:4], dead_run())
    (batch,) = plan.batches
    heir = RunIdentity.here("heir")
    with Heartbeat(local_store, heir):
        adopted = plan_of(local_store, FILES[:4], heir)
        assert adopted.batches == plan.batches
        land_planned(local_store, batch)
        mark_done(local_store, adopted)
    land_nights(local_store, FILES[4:])
    compact(local_store)
    before = contents(local_store)

    if not killed:
        late = land_planned(local_store, batch, " late")
        assert (late.wrote, late.landed_files, late.uri) == (False, batch.files, None)  # type: ignore[attr-defined]
    else:
        seen = 0

        def kill(what: str, path: str) -> None:
            nonlocal seen
            seen += what == "listed"
            if seen:
                raise Killed

        with pytest.raises(Killed):
            land_planned(WatchedStore(local_store, kill), batch, " late")
        assert n_parts(local_store) == 2
        assert live_uris(local_store) == ONCE, "our own readers pass it over"
        assert repair_derived(local_store) == 0, "and nobody derives from it"
        tidy(local_store, RunIdentity.here("next"))
    assert contents(local_store) == before
    assert plan_of(local_store, FILES, RunIdentity.here("last")).batches == ()


def test_a_run_that_derives_while_its_part_is_merged_takes_that_back(local_store: Store) -> None:
    land_nights(local_store, FILES[4:])
    plan = plan_of(local_store, FILES[:4], dead_run())
    swapped = []

    def swap(what: str, path: str) -> None:
        if what == "create" and path.startswith("words/") and not swapped:
            swapped.append(compact(local_store))

    land_planned(WatchedStore(local_store, swap), plan.batches[0])
    assert swapped[0].parts_after == 1
    assert rows_of(local_store) == ONCE
    assert_flat_tables_match(local_store)


def test_the_part_that_a_record_names_is_not_taken_for_garbage_before_the_output_stands(local_store: Store) -> None:
    land_nights(local_store, FILES)

    def kill(what: str, path: str) -> None:
        if what == "create" and path.startswith("segments/"):
            raise Killed

    with pytest.raises(Killed):
        compact(WatchedStore(local_store, kill))
    (entry,) = CompactionLog(local_store).read().unfinished
    names = [found.path.rpartition("/")[2].removesuffix(".parquet") for found in entry.record.merges[0].inputs]
    assert len(names) == 4
    assert not any(merged_away(local_store, name) for name in names)
    compact(local_store)
    assert all(merged_away(local_store, name) for name in names)
    assert rows_of(local_store) == ONCE


@pytest.mark.parametrize("at", ["segments/", "words/", "transcripts/"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_compaction_that_stood_still_while_others_went_on(local_store: Store, at: str, killed: bool) -> None:
    """It is about to create its output; others finish its record, and compact the output into another."""
    land_nights(local_store, FILES[:6])
    stood = False

    def stand_still(what: str, path: str) -> None:
        nonlocal stood
        if what == "create" and path.startswith(at) and not stood:
            stood = True
            compact(local_store)
            land_nights(local_store, FILES[6:])
            compact(local_store)
        elif stood and killed and (what in ("listed", "delete") or path.startswith("transcripts/")):
            raise Killed

    slow = WatchedStore(local_store, stand_still)
    if killed:
        with pytest.raises(Killed):
            compact(slow)
        assert live_uris(local_store) == ONCE
        tidy(local_store, RunIdentity.here("next"))
    else:
        compact(slow)
    assert rows_of(local_store) == ONCE
    assert_flat_tables_match(local_store)
    assert n_parts(local_store) == n_parts(local_store, "segments") == 1


def test_the_next_run_ends_what_a_dead_compaction_left(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    land_nights(local_store, FILES)

    def kill(what: str, path: str) -> None:
        if what == "delete" and path.startswith("transcripts/"):
            raise Killed

    with pytest.raises(Killed):
        compact(WatchedStore(local_store, kill))
    assert n_parts(local_store) == 5
    run = RunIdentity.here("next")
    monkeypatch.setattr(tasks.compact, "is_alive", lambda *_, **__: True)
    tidy(local_store, run)
    assert n_parts(local_store) == 5, "its process is alive: it will end it itself"
    monkeypatch.undo()
    local_store.delete(f"_runs/{CompactionLog(local_store).read().unfinished[0].record.run.run_id}.alive")
    tidy(local_store, run)
    assert n_parts(local_store) == 1
    assert rows_of(local_store) == ONCE


def test_a_lost_answer_to_the_create_of_a_record_or_an_output(local_store: Store) -> None:
    """The request is repeated, and finds what it has created itself."""
    land_nights(local_store, FILES)

    class Forgetful(WatchedStore):
        def create_exclusive(self, path: str, payload: bytes) -> bool:
            return super().create_exclusive(path, payload) and super().create_exclusive(path, payload)

    assert compact(Forgetful(local_store, lambda what, path: None)).parts_after == 1
    assert rows_of(local_store) == ONCE
    assert_flat_tables_match(local_store)


def test_a_record_is_carried_out_by_two_step_by_step(local_store: Store) -> None:
    """One does the whole of it before each step of the other."""
    land_nights(local_store, FILES[:6])
    land(local_store, FILES[:1], 1, at=NOON + timedelta(days=9))

    def kill(what: str, path: str) -> None:
        if what == "create" and not path.startswith("_compactions/"):
            raise Killed

    with pytest.raises(Killed):
        compact(WatchedStore(local_store, kill))
    (entry,) = CompactionLog(local_store).read().unfinished
    (merge,) = entry.record.merges

    def other(what: str, path: str) -> None:
        if what in ("create", "delete"):
            carry_out(local_store, merge, "compact")

    carry_out(WatchedStore(local_store, other), merge, "compact")
    carry_out(local_store, merge, "compact")
    assert rows_of(local_store) == Counter(file.uri for file in FILES[:6])
    assert read_ledger(local_store, OPTIONS).generation(FILES[0]) == 2


def test_a_part_that_a_person_moved_away_does_not_stop_anything(local_store: Store) -> None:
    land_nights(local_store, FILES)

    def kill(what: str, path: str) -> None:
        if what == "create" and path.startswith(("segments/", "_superseded/")):
            raise Killed

    with pytest.raises(Killed):
        compact(WatchedStore(local_store, kill))
    (entry,) = CompactionLog(local_store).read().unfinished
    local_store.delete(entry.record.merges[0].inputs[1].path)
    left = Counter(file.uri for file in FILES[:3] + FILES[6:])
    assert live_uris(local_store) == left
    compact(local_store)
    assert rows_of(local_store) == left
    plan = plan_of(local_store, FILES, RunIdentity.here("next"))
    assert plan.files == tuple(FILES[3:6])
    land_planned(local_store, plan.batches[0])
    assert rows_of(local_store) == ONCE, "under a name that is not retired"


def test_old_records_are_pruned_but_not_the_last(local_store: Store) -> None:
    for night in range(3):
        land(local_store, FILES[night * 2 : night * 2 + 2], at=NOON + timedelta(days=night))
        compact(local_store)
    log = CompactionLog(local_store)
    assert [entry.number for entry in log.read().entries] == [1, 2]
    later = datetime.now(UTC) + timedelta(days=91)
    (kept, *_) = log.read().input_names
    log.prune(datetime.now(UTC), frozenset())
    log.prune(later, log.read().input_names)
    assert len(log.read().entries) == 2
    log.prune(later, frozenset())
    assert [entry.number for entry in log.read().entries] == [2]
    log.prune(later, frozenset({kept}))
    assert rows_of(local_store) == Counter(file.uri for file in FILES[:6])


def test_a_killed_writer_of_this_machine_leaves_nothing_for_long(local_store: Store) -> None:
    """Its temporary files are swept as soon as its process is gone: they hold what was said."""
    payload = to_parquet(
        transcripts_table(
            LandingBatch("b", NOON.date(), OPTIONS, tuple(FILES[:1]), (0,)), [landed(FILES[0])], stamp(),
            transcribed_at=NOON,
        )
    )  # fmt: skip
    from tasks.process_mark import process_mark

    place = open_store(local_store.uri)
    place.replace(f"_tmp/part.parquet.0123{process_mark(pid=2**22 + 1)}.tmp", payload)
    place.replace(f"_tmp/part.parquet.0123{process_mark()}.tmp", payload)
    place.replace("_tmp/part.parquet.0123-0a1b2c3d-1.tmp", payload)
    place.sweep()
    assert [stored.path.rpartition(".0123")[2] for stored in place.list("_tmp")] == sorted(
        ["-0a1b2c3d-1.tmp", f"{process_mark()}.tmp"]
    )
