"""A clock that jumps in the middle of a night, back an hour and forward a day: one row a file, no negative time, and
nobody is taken for dead who lives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from tasks.liveness import RunIdentity, beat, heartbeat_path, is_alive
from tasks.run_record import read_records
from tasks.storage import open_store
from tasks.types import LandingBatch
from tests.engine.encoding import wav
from tests.faults.quick_night import QuickNight, quick_night
from tests.faults.runs import RUN_OPTIONS, parts, said
from tests.flows.conftest import CommandLine, Night, advanced, night, prefect_api  # noqa: F401
from tests.flows.tables import rows
from tests.long_form import long
from tests.prefect_server import PrefectServer
from tests.tasks.waiting import until

HOUR_S, DAY_S = 3_600, 86_400
N_SOME, SOME = 8, ("--pattern", "en_0*.flac")
"""So many of the source are enough; in parts of two."""
JUMPS_S = {"back an hour": -HOUR_S, "forward a day": DAY_S}


def shift(path: Path, by_s: float) -> None:
    """What a file written before a jump of `-by_s` looks like after it: a disk stamps it by the machine's clock."""
    moment = path.stat().st_mtime + by_s
    os.utime(path, (moment, moment))


@pytest.fixture
def six_files(tmp_path: Path) -> Path:
    folder = tmp_path / "calls"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.wav").write_bytes(wav(bytes(8_000)))
    return folder


@pytest.mark.parametrize("jump", JUMPS_S)
def test_a_run_whose_heartbeat_was_written_before_the_jump_keeps_its_files(
    jump: str, six_files: Path, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "tables"))
    beside: list[QuickNight] = []

    def another_run_plans(batch: LandingBatch) -> None:
        for heartbeat in Path(store.uri).glob("_runs/*.alive"):
            shift(heartbeat, -JUMPS_S[jump])
        beside.append(quick_night(six_files, store))

    first = quick_night(six_files, store, files_per_part=2, before_landing=another_run_plans)
    assert [other.planned for other in beside] == [0, 0, 0], "a live run was taken for dead"
    assert (first.planned, first.landed) == (6, 6)
    assert len(rows(store.uri)) == 6


@pytest.mark.parametrize("jump", JUMPS_S)
def test_a_run_that_is_silent_is_dead_however_its_heartbeat_is_dated(
    jump: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this machine; its process is of another container, so that only the heartbeat can tell."""
    store = open_store(str(tmp_path / "tables"))
    run = replace(RunIdentity.here("silent"), pid_namespace="pid:[1]")
    now = beat(store, run)
    shift(Path(store.uri, heartbeat_path("silent")), -JUMPS_S[jump])
    assert is_alive(store, run, store_now=now)
    since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr("tasks.liveness._since_boot_s", lambda: since_boot_s + 181.0)
    assert not is_alive(store, run, store_now=now)


def test_a_heartbeat_of_a_version_that_did_not_say_is_judged_by_the_stores_clock(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "tables"))
    run = replace(RunIdentity.here("old"), pid_namespace="pid:[1]")
    for payload in (b"{}", b"", b"[]", b'{"since_boot_s": null}'):
        store.replace(heartbeat_path("old"), payload)
        stored = store.stat(heartbeat_path("old"))
        assert stored is not None
        assert is_alive(store, run, store_now=stored.modified_at + timedelta(seconds=179))
        assert not is_alive(store, run, store_now=stored.modified_at + timedelta(seconds=181))


def test_a_file_that_is_being_written_survives_a_jump_forward(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "tables"))
    swept: list[int] = []
    link = os.link

    def slow_link(temporary: Path, final: Path) -> None:
        shift(temporary, -DAY_S)
        open_store(store.uri).prove()  # another run begins
        swept.append(1)
        link(temporary, final)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.link", lambda a, b: link(a, b) if "_probe" in str(b) else slow_link(a, b))
        assert store.create_exclusive("transcripts/a.parquet", b"whole")
    assert swept and store.read("transcripts/a.parquet") == b"whole"


@pytest.mark.parametrize("jump", JUMPS_S)
def test_a_run_in_whose_process_the_clock_jumps(
    jump: str,
    night: Callable[..., Night],  # noqa: F811
    six_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As seen from here; the whole night below has it jump for the workers, too."""
    dest = tmp_path / "tables"
    ahead_s = 0

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(seconds=ahead_s)

    class JumpingAtTheFirstPart(Jumping):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            nonlocal ahead_s
            moment = super().now(tz)
            ahead_s = JUMPS_S[jump]
            return moment

    for module in [found for name, found in sys.modules.items() if name.startswith("tasks.")]:
        if getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Jumping)
    monkeypatch.setattr("tasks.land.datetime", JumpingAtTheFirstPart)
    done = night(six_files, dest, backend="fake", advanced=advanced(files_per_part=2))
    assert done.summary.landed == 6
    assert 0 < done.summary.wall_seconds < 300
    found = rows(dest).values()
    assert len(found) == 6 and all(row["processing_s"] >= 0 for row in found)
    moments = sorted(row["transcribed_at"] for row in found)
    assert moments[-1] - moments[0] > timedelta(seconds=HOUR_S - 300), "the clock did not jump"
    (record,) = read_records(open_store(str(dest)))
    assert record.ended_at is not None and timedelta(0) < record.ended_at - record.started_at < timedelta(seconds=300)
    assert all(value >= 0 for value in record.counts.values()), record.counts


@pytest.fixture(scope="module")
def jumping_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload. The system's own clock is not ours to set."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler to build the clock that jumps (Debian, Ubuntu: apt install gcc)")
    library = tmp_path_factory.mktemp("clock") / "jumping_clock.so"
    made_from = Path(__file__).parent / "clock" / "jumping_clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, made_from], check=True)
    return library


@long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("jump", JUMPS_S)
def test_a_whole_night_through_a_jump(
    jump: str, jumping_clock: Path, server: PrefectServer, source: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    dest, clock = tmp_path / "tables", tmp_path / "clock"
    clock.write_text("0")
    command = ("run", source, dest, *RUN_OPTIONS, *SOME, "--spool", tmp_path / "spool")
    flow = CommandLine(server.url).start(*command, LD_PRELOAD=str(jumping_clock), JUMPING_CLOCK=str(clock))
    until(lambda: parts(dest) >= 1 or flow.poll() is not None, within_s=120)
    clock.write_text(str(JUMPS_S[jump]))
    at_the_jump = parts(dest)
    out, err = flow.communicate(timeout=200)
    assert flow.returncode == 0, err
    assert "Traceback" not in err, err
    summary = json.loads(out.splitlines()[-1])
    assert at_the_jump < N_SOME // 2, "the night was over before the clock jumped"
    assert summary["landed"] == N_SOME
    assert 0 < summary["wall_seconds"] < 300 and summary["rtfx"] > 0

    assert said(dest).items() <= texts.items() and len(said(dest)) == N_SOME
    found = rows(dest).values()
    assert all(row["processing_s"] >= 0 for row in found)
    moments = sorted(row["transcribed_at"] for row in found)
    assert moments[-1] - moments[0] > timedelta(seconds=HOUR_S - 300), "the clock did not jump"
    (record,) = read_records(open_store(str(dest)))
    assert record.ended_at is not None and timedelta(0) < record.ended_at - record.started_at < timedelta(seconds=300)
    assert all(value >= 0 for value in record.counts.values()), record.counts
    again = CommandLine(server.url)(*command)
    assert (again.status, again.json["landed"], again.json["already_done"]) == (0, 0, N_SOME), again.err
