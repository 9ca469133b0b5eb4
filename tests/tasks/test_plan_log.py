"""Planning: no file twice, none missed, whoever plans at once and whoever has died."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from stt_engine.errors import DestinationRefused
from tasks.discover import discover
from tasks.land import land_batch
from tasks.liveness import Heartbeat, RunIdentity, beat, heartbeat_path
from tasks.parts import list_parts, read_columns
from tasks.plan import make_plan
from tasks.plan_log import KEEP_DONE, PlanEntry, PlanLog, mark_done, plan_number
from tasks.storage import Store
from tasks.types import AudioFile, NightPlan
from tests.tasks.builders import NOON, OPTIONS, audio_file, audio_files, landed, stamp

DAY = date(2026, 3, 1)


def here(run_id: str) -> RunIdentity:
    return RunIdentity.here(run_id)


def elsewhere(run_id: str) -> RunIdentity:
    return replace(RunIdentity.here(run_id), host="another-machine", boot_id="another-boot")


def plan_for(
    store: Store, run: RunIdentity | str, files: list[AudioFile] | Iterator[AudioFile], **settings: object
) -> NightPlan:
    identity = here(run) if isinstance(run, str) else run
    return make_plan(store, files, run=identity, options_hash=OPTIONS, **settings)  # type: ignore[arg-type]


def land_all(store: Store, plan: NightPlan, *, without: frozenset[AudioFile] = frozenset()) -> None:
    for batch in plan.batches:
        land_batch(store, batch, [landed(file) for file in batch.files if file not in without], stamp(plan.run_id))


def rows(store: Store) -> Counter[tuple[str, str]]:
    parts = read_columns(store, list(list_parts(store, "transcripts")), ("source_uri", "source_version"))
    return Counter(pair for part in parts for pair in zip(*(column.to_pylist() for column in part), strict=True))


def test_the_second_run_finds_nothing_new(store: Store) -> None:
    files = audio_files(30)
    first = plan_for(store, "one", files)
    assert first.files == tuple(files)
    assert (first.discovered, first.already_done, first.claimed_elsewhere, first.deferred) == (30, 0, 0, 0)
    assert len({batch.batch_id for batch in first.batches}) == len(first.batches) > 1
    land_all(store, first)
    mark_done(store, first)
    second = plan_for(store, "two", files)
    assert second.batches == ()
    assert (second.plan_id, second.discovered, second.already_done) == ("", 30, 30)
    assert [found.path for found in store.list("_plans")] == ["_plans/00000001.done", "_plans/00000001.json"]
    grown = [*files, audio_file(30), replace(files[3], etag="changed")]
    third = plan_for(store, "three", grown)
    assert third.files == (audio_file(30), replace(files[3], etag="changed"))
    assert third.batches[0].generations == (0, 1)


def test_a_live_run_keeps_its_files(store: Store) -> None:
    files = audio_files(10)
    with Heartbeat(store, elsewhere("one")):
        first = plan_for(store, elsewhere("one"), files[:6])
        second = plan_for(store, "two", files)
        assert second.files == tuple(files[6:])
        assert second.claimed_elsewhere == 6
        forced = plan_for(store, "three", files, force=True)
        assert forced.claimed_elsewhere == 10
        assert forced.batches == ()
        land_all(store, first, without=frozenset(files[:1]))
        mark_done(store, first)
    assert plan_for(store, "four", files[:6]).files == (files[0],)


def test_other_options_are_other_work(store: Store) -> None:
    files = audio_files(4)
    with Heartbeat(store, elsewhere("one")):
        plan_for(store, elsewhere("one"), files)
        other = make_plan(store, files, run=here("two"), options_hash="ffff")
        assert other.files == tuple(files)


def test_a_dead_run_here_is_adopted_at_once(store: Store) -> None:
    """Its heartbeat is fresh, but its process is gone."""
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()
    identity = replace(here("dead"), pid=ended.pid, process_started=stat[19])
    beat(store, identity)
    files = audio_files(20)
    claimed = plan_for(store, identity, files)
    assert plan_for(store, "while it lives", files).claimed_elsewhere == 20
    ended.communicate()
    adopted = plan_for(store, "heir", files, now=datetime.now(UTC) + timedelta(days=3))
    assert adopted.batches == claimed.batches, "same names, dates and members"
    entry = PlanLog(store).entry(plan_number(adopted.plan_id))
    assert entry is not None
    (adoption,) = entry.adopts
    assert adoption.plan_number == plan_number(claimed.plan_id)
    assert set(adoption.batch_ids) == {batch.batch_id for batch in claimed.batches}


def test_a_run_elsewhere_is_adopted_when_it_falls_silent(store: Store) -> None:
    files = audio_files(5)
    claimed = plan_for(store, elsewhere("silent"), files)
    assert plan_for(store, "early", files).batches == ()
    late = plan_for(store, "late", files, dead_after_s=0.0)
    assert late.batches == claimed.batches


def test_a_run_that_left_in_order_but_unfinished_is_adopted_at_once(store: Store) -> None:
    files = audio_files(12)
    with Heartbeat(store, elsewhere("cancelled")):
        claimed = plan_for(store, elsewhere("cancelled"), files)
        land_batch(store, claimed.batches[0], [landed(file) for file in claimed.batches[0].files], stamp())
    heir = plan_for(store, "heir", files)
    assert heir.batches == claimed.batches[1:]
    assert heir.already_done == len(claimed.batches[0].files)


def test_a_run_that_starts_again_takes_up_its_own_plan(store: Store) -> None:
    files = audio_files(12)
    with Heartbeat(store, elsewhere("same")):
        first = plan_for(store, elsewhere("same"), files)
        assert plan_for(store, elsewhere("same"), files).batches == first.batches


def test_a_batch_that_nobody_wants_is_left(store: Store) -> None:
    files = audio_files(16)
    claimed = plan_for(store, "dead", files, files_per_batch=8)
    store.delete(heartbeat_path("dead"))
    heir = plan_for(store, "heir", files[:2], files_per_batch=8)
    assert heir.batches == claimed.batches[:1], "whole, for the sake of two of its files"
    other = make_plan(store, files, run=here("other options"), options_hash="ffff")
    assert not {batch.batch_id for batch in other.batches} & {batch.batch_id for batch in claimed.batches}


def test_what_failed_retryably_is_planned_anew(store: Store) -> None:
    files = audio_files(8)
    first = plan_for(store, "one", files)
    land_all(store, first, without=frozenset(files[5:]))
    mark_done(store, first)
    second = plan_for(store, "two", files)
    assert second.files == tuple(files[5:])
    assert second.batches[0].batch_id != first.batches[0].batch_id
    mark_done(store, second)  # none of them came through
    third = plan_for(store, "three", files)
    assert third.batches == second.batches, "never landed: the name may come again"
    land_all(store, third)
    mark_done(store, third)
    assert rows(store) == Counter((file.uri, file.version) for file in files)


def test_the_rest_of_a_dead_runs_partial_batch_is_free(store: Store) -> None:
    files = audio_files(8)
    dead = plan_for(store, "dead", files)
    land_all(store, dead, without=frozenset(files[:2]))
    store.delete(heartbeat_path("dead"))
    heir = plan_for(store, "heir", files)
    assert heir.files == tuple(files[:2])
    assert PlanLog(store).read().highest == 2
    assert [plan.number for plan in PlanLog(store).read().open_plans] == [2], "nothing of the dead one can land now"


def test_a_landing_of_unknown_outcome_keeps_its_name(store: Store) -> None:
    """A create that timed out may still arrive: until it does, or somebody lands it, the name must not change."""
    files = audio_files(8)
    first = plan_for(store, "one", files)
    mark_done(store, first, unsettled=[first.batches[0].batch_id])
    second = plan_for(store, "two", [*files, audio_file(99)])
    assert second.batches[0] == first.batches[0]
    land_all(store, first)  # the late arrival
    land_all(store, second)
    mark_done(store, second)
    assert rows(store) == Counter((file.uri, file.version) for file in [*files, audio_file(99)])
    plan_for(store, "three", files)
    assert PlanLog(store).read().open_plans == ()


def test_force_names_its_batches_apart(store: Store) -> None:
    files = audio_files(5)
    for generation in range(3):
        plan = plan_for(store, f"run-{generation}", files, force=True)
        assert plan.files == tuple(files)
        assert plan.batches[0].generations == (generation,) * 5
        land_all(store, plan)
        mark_done(store, plan)
    assert set(rows(store).values()) == {3}
    assert plan_for(store, "nightly", files).batches == ()


def test_a_plan_that_comes_and_goes_while_another_is_made_is_not_missed(store: Store) -> None:
    """The other run plans, lands and marks done after this one has read the log and the ledger."""
    files = audio_files(10)

    def listing() -> Iterator[AudioFile]:
        other = plan_for(store, "quick", files[:6])
        land_all(store, other)
        mark_done(store, other)
        yield from files

    slow = plan_for(store, "slow", listing())
    assert slow.files == tuple(files[6:])
    assert slow.claimed_elsewhere == 6
    assert plan_number(slow.plan_id) == 2
    land_all(store, slow)
    assert rows(store) == Counter((file.uri, file.version) for file in files)


def test_two_heirs_of_one_dead_run_share_nothing(store: Store) -> None:
    files = audio_files(24)
    dead = plan_for(store, "dead", files[:16], files_per_batch=8)
    store.delete(heartbeat_path("dead"))

    def listing() -> Iterator[AudioFile]:
        yield from files
        assert plan_for(store, "quick heir", files[:8]).batches == dead.batches[:1]

    slow = plan_for(store, "slow heir", listing(), files_per_batch=8)
    assert slow.batches[0] == dead.batches[1]
    assert slow.files == tuple(files[8:])


@pytest.mark.parametrize("dest", ["local", pytest.param("ceph", marks=pytest.mark.ceph)], indirect=True)
def test_planners_at_once_never_share_a_file(store: Store) -> None:
    files = audio_files(60)
    store.prove()
    gate = threading.Barrier(6)

    def planner(number: int) -> NightPlan:
        gate.wait()
        return plan_for(store, elsewhere(f"run-{number}"), files[number * 8 : number * 8 + 20])

    with ThreadPoolExecutor(6) as pool:
        plans = list(pool.map(planner, range(6)))
    taken = Counter(file for plan in plans for file in plan.files)
    assert taken == Counter(dict.fromkeys(files, 1))
    assert sorted(plan.plan_id for plan in plans if plan.plan_id) == [
        f"{number + 1:08d}-{plan.plan_id.partition('-')[2]}"
        for number, plan in enumerate(sorted((p for p in plans if p.plan_id), key=lambda plan: plan.plan_id))
    ]


@pytest.mark.parametrize("dest", ["local", pytest.param("ceph", marks=pytest.mark.ceph)], indirect=True)
def test_processes_that_plan_at_once_never_share_a_file(
    dest: str, store: Store, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    runs = [spawn("tests.tasks.landing_run", dest, f"run-{n}", "40", "0") for n in range(3)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    said = [line for run in runs for line in run.communicate("go\n", timeout=60)[0].splitlines()]
    assert said.count("done") == 3
    landings = Counter(line for line in said if line.startswith("landed"))
    assert set(landings.values()) == {1}
    assert rows(store) == Counter((file.uri, file.version) for file in audio_files(40))


def test_a_request_that_finds_its_own_entry_has_won(store: Store) -> None:
    entry = PlanEntry("00000001-abc", here("one"), NOON, OPTIONS, ())
    log = PlanLog(store)
    assert log.append(1, entry)
    assert log.append(1, entry), "repeated after its answer was lost"
    assert not log.append(1, replace(entry, plan_id="00000001-def"))


def test_entries_come_back_as_they_were(store: Store) -> None:
    files = [
        AudioFile("s3://c/한국 '#1'\n.wav", "한국 '#1'\n.wav", None, 7, datetime(2026, 1, 1, 0, 0, 0, 123457, UTC))
    ]
    plan = plan_for(store, "one", files)
    entry = PlanLog(store).entry(1)
    assert entry is not None
    assert entry.batches == plan.batches
    assert entry.batches[0].files[0].file_id == files[0].file_id
    assert entry.run == here("one")


def test_old_entries_are_pruned_but_the_highest(local_store: Store) -> None:
    log = PlanLog(local_store)
    for number in range(1, 5):
        assert log.append(number, PlanEntry(f"{number:08d}-x", here("one"), NOON, OPTIONS, ()))
    for number in (1, 3, 4):
        log.mark_done(number)
    log.prune(datetime.now(UTC))
    assert len(list(local_store.list("_plans"))) == 7
    log.prune(datetime.now(UTC) + KEEP_DONE + timedelta(minutes=1))
    assert [found.path[-13:] for found in local_store.list("_plans")] == [
        "00000002.json",
        "00000004.done",
        "00000004.json",
    ]
    assert log.read().highest == 4


def test_a_plan_that_cannot_be_read_is_named(local_store: Store) -> None:
    plan_for(local_store, "one", audio_files(2))
    local_store.replace("_plans/00000001.json", b'{"format": 1}')
    with pytest.raises(DestinationRefused, match=r"00000001\.json"):
        plan_for(local_store, "two", audio_files(2))


def test_a_dry_run_writes_nothing(store: Store) -> None:
    dry = plan_for(store, "dry", audio_files(9), claim=False)
    assert len(dry.files) == 9
    assert list(store.list("")) == []
    mark_done(store, dry)
    assert list(store.list("")) == []


def test_a_limit_counts_what_is_left_to_do(store: Store) -> None:
    files = audio_files(9)
    for night in range(3):
        plan = plan_for(store, f"night-{night}", files, limit=3)
        assert plan.files == tuple(files[night * 3 : night * 3 + 3])
        land_all(store, plan)
        mark_done(store, plan)
    assert plan_for(store, "last", files, limit=3).files == ()


def test_deferred_files_are_counted(local_store: Store, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    for name, age_s in (("old.wav", 900), ("young.wav", 10)):
        path = tmp_path / "audio" / name
        path.write_bytes(b"x")
        moment = NOON.timestamp() - age_s
        os.utime(path, (moment, moment))
    plan = make_plan(
        local_store, discover(str(tmp_path / "audio"), settle_s=300, now=NOON), run=here("one"), options_hash=OPTIONS
    )
    assert [file.key for file in plan.files] == ["old.wav"]
    assert (plan.discovered, plan.deferred) == (2, 1)


def test_a_file_listed_twice_is_planned_once(local_store: Store) -> None:
    plan = plan_for(local_store, "one", [*audio_files(5), audio_file(2)])
    assert plan.files == tuple(audio_files(5))
    assert plan.discovered == 5
