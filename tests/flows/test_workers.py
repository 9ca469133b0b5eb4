"""Workers and flow killed in mid-run, and a run cancelled from the UI: nothing is lost, doubled or left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.announce import Event, listening
from tasks.night_terms import FileFinished
from tasks.run_record import read_records
from tasks.storage import open_store
from tasks.types import LandedPart
from tests.flows.conftest import CommandLine, Night, advanced, logs_of, task_runs_of, workers_below
from tests.flows.tables import rows
from tests.long_form import long
from tests.tasks.waiting import gone, until


@pytest.fixture
def source(tmp_path: Path, samples: Path, recordings: Path) -> Path:
    """66 recordings: eight landing batches, and some task batches."""
    folder = tmp_path / "calls"
    folder.mkdir()
    for original in (samples, recordings):
        (folder / original.name).symlink_to(original)
    return folder


N_FILES = 66


def test_killed_workers_cost_one_more_load_and_no_file(
    night: Callable[..., Night], source: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "tables"
    killed: dict[int, str] = {}

    def kill_all(event: Event) -> None:
        """Still them first: half a second later each holds an order, whatever it was doing when the file finished."""
        if isinstance(event, FileFinished) and not killed:
            killed.update(workers_below(os.getpid()))
            for pid in killed:
                os.kill(pid, signal.SIGSTOP)
            threading.Timer(0.5, lambda: [os.kill(pid, signal.SIGKILL) for pid in killed]).start()

    with listening(kill_all):
        done = night(source, dest, backend="fake")
    assert sorted(killed.values()) == ["cpu", "gpu"]
    assert done.state.is_completed(), done.state.message
    assert len(rows(dest)) == done.summary.landed == N_FILES

    (record,) = read_records(open_store(str(dest)))
    assert record.counts["model_loads"] == 2
    loads = [line for line in logs_of(done.flow_run_id) if line.startswith("model loaded in")]
    assert len(loads) == len(set(loads)) == 2
    (dead,) = (pid for pid, kind in killed.items() if kind == "gpu")
    assert sum(f"worker process {dead} on cpu" in line for line in loads) == 1

    runs = task_runs_of(done.flow_run_id)
    splits = [run for run in runs if run.name.startswith("split ")]
    transcribes = [run for run in runs if run.name.startswith("transcribe ")]
    uris = {uri.removeprefix(f"{source}/") for uri in _uris(dest)}
    assert {run.name for run in splits} == {f"split {key}" for key in uris}, "a task run without its file's name"
    (retried,) = (run for run in splits if run.run_count > 1)
    assert (retried.run_count, retried.state.name) == (2, "Completed")
    assert rows(dest)[retried.name.rpartition("/")[2]]["attempts"] >= 2
    assert max(row["attempts"] for row in rows(dest).values()) <= 3
    # The stages overlap: some file was being split while others were being transcribed.
    assert any(s.start_time < t.end_time and t.start_time < s.end_time for s in splits for t in transcribes)


def _uris(dest: Path) -> list[str]:
    from tests.flows.tables import query

    return [row["source_uri"] for row in query("SELECT source_uri FROM {transcripts}", dest)]


@pytest.mark.parametrize(
    "ending", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=long), signal.SIGINT], ids=lambda s: s.name
)
def test_a_flow_that_is_ended_leaves_nothing_behind_and_the_next_run_goes_on(
    night: Callable[..., Night], command_line: CommandLine, source: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    dest, spool = tmp_path / "tables", tmp_path / "spool"
    flow = command_line.start(
        "run", source, dest, "--model", "fixture", "--backend", "fake", "--device", "cpu",
        "--cpu-workers", "1", "--spool", spool, "--files-per-part", "8",
    )  # fmt: skip
    try:
        until(lambda: any(dest.glob("transcripts/*/*.parquet")), within_s=60.0)
        workers = workers_below(flow.pid)
        flow.send_signal(ending)
        until(lambda: all(gone(pid) for pid in workers), within_s=3.0)
        _, said = flow.communicate(timeout=30.0)
    finally:
        flow.kill()
        flow.wait()
    assert sorted(workers.values()) == ["cpu", "gpu"]
    before = rows(dest)
    assert 0 < len(before) < N_FILES, "the run was over before it could be ended"
    assert flow.returncode == {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: 130}[ending]
    assert "Traceback" not in said
    if ending == signal.SIGKILL:
        assert list(spool.iterdir()), "there was nothing to sweep"
    else:
        assert list(spool.iterdir()) == []
    if ending == signal.SIGINT:
        assert "the same command goes on with the rest" in said

    done = night(source, dest, backend="fake", advanced=advanced(spool=str(spool), files_per_part=8))
    assert done.state.is_completed()
    assert done.summary.claimed_elsewhere == 0
    assert done.summary.planned == N_FILES - len(before)
    assert list(spool.iterdir()) == []
    after = rows(dest)
    assert len(after) == N_FILES
    assert {row["run_id"] for row in after.values()} == {done.summary.run_id, *(r["run_id"] for r in before.values())}


def test_cancelling_in_the_ui_lands_what_is_complete(
    night: Callable[..., Night], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import runtime
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    monkeypatch.setattr("tasks.cancel.EVERY_S", 0.1)
    dest = tmp_path / "tables"
    asked: list[str] = []

    def watching() -> bool:
        return any(thread.name == "cancel-watch" for thread in threading.enumerate())

    def press_the_button(event: Event) -> None:
        if isinstance(event, LandedPart) and not asked:
            asked.append(runtime.flow_run.id)
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(asked[0], Cancelling())
            until(lambda: not watching())  # it has seen it, and the night will

    with listening(press_the_button):
        done = night(source, dest, backend="fake")
    assert workers_below(os.getpid()) == {}
    assert done.summary.cancelled
    assert done.state.is_cancelled()
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(done.flow_run_id)
    assert run.state is not None
    assert (run.state.name, run.state.message) == ("Cancelled", done.summary.line)

    landed = len(rows(dest))
    assert 0 < landed == done.summary.landed < N_FILES
    assert done.summary.not_started == N_FILES - landed
    assert done.summary.failed_retryable == 0
    rest = night(source, dest, backend="fake")
    assert (rest.summary.planned, rest.summary.claimed_elsewhere) == (N_FILES - landed, 0)
    assert len(rows(dest)) == N_FILES


def test_a_file_that_keeps_failing_is_retried_under_its_name_and_left_for_the_next_run(
    night: Callable[..., Night], samples: Path, tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client

    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    (source / "slow.flac").symlink_to(samples / "en_000.flac")
    hurry = advanced(split_deadline_s=0.0001, retries=1, retry_delay_s=0.05)
    done = night(source, dest, backend="fake", advanced=hurry)
    assert done.state.is_failed(), "no alert would fire"
    assert (done.summary.landed, done.summary.failed_retryable, done.summary.failed_terminal) == (0, 1, 0)
    assert not list(dest.glob("transcripts/*/*.parquet"))
    (record,) = read_records(open_store(str(dest)))
    (failure,) = record.failures
    assert failure.uri == str(source / "slow.flac")
    assert failure.error_type == "DeadlineExceeded"

    (run,) = task_runs_of(done.flow_run_id)
    assert (run.name, run.run_count, run.state.name) == ("split slow.flac", 2, "Failed")
    with get_client(sync_client=True) as client:
        states = client.read_task_run_states(run.id)
    assert "AwaitingRetry" in [state.name for state in states]

    again = night(source, dest, backend="fake")
    assert (again.state.name, again.summary.landed) == ("Completed", 1)
