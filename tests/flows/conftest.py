"""The real flow under a real Prefect server, with the real workers and the built-in model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.report import RunSummary
from tasks.settings import AdvancedSettings
from tests.tasks.waiting import until

ROOT = Path(__file__).parents[2]


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Inside, Prefect in this process talks to that server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_LEVEL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url, PREFECT_LOGGING_LEVEL: "INFO"}):
        yield


@pytest.fixture
def prefect_api(prefect_url: str) -> Iterator[str]:
    with asking(prefect_url):
        yield prefect_url


@dataclass(frozen=True)
class Night:
    """One flow run that has ended."""

    state: Any
    summary: RunSummary
    flow_run_id: Any


def advanced(**changed: Any) -> AdvancedSettings:
    """Without waiting before a retry."""
    return AdvancedSettings(**{"retry_delay_s": 0.0} | changed)


def run_night(source: Path | str, dest: Path | str, **options: Any) -> Night:
    """The flow in this process; two workers."""
    from flows.transcribe_new_audio import transcribe_new_audio

    usual: dict[str, Any] = {"model": "fixture", "device": "cpu", "cpu_workers": 1, "advanced": advanced()}
    state = transcribe_new_audio(str(source), str(dest), **usual | options, return_state=True)
    summary = state.result(raise_on_failure=False)
    if isinstance(summary, BaseException):
        raise summary
    assert isinstance(summary, RunSummary)
    return Night(state, summary, state.state_details.flow_run_id)


@pytest.fixture
def night(prefect_api: str) -> Callable[..., Night]:
    return run_night


def task_runs_of(flow_run_id: Any) -> list[Any]:
    """As the API tells them, once it has the end of every one: their rows arrive late."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    found: list[Any] = []

    def all_final() -> bool:
        found.clear()
        with get_client(sync_client=True) as client:
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
            while page := client.read_task_runs(flow_run_filter=wanted, limit=200, offset=len(found)):
                found.extend(page)
        return bool(found) and all(run.state is not None and run.state.is_final() for run in found)

    until(all_final, within_s=30.0)
    return found


def logs_of(flow_run_id: Any) -> list[str]:
    """Every line of a run, its task runs included, as the API tells them, once the last one has arrived."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    found: list[str] = []

    def complete() -> bool:
        found.clear()
        with get_client(sync_client=True) as client:
            wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
            while page := client.read_logs(wanted, limit=200, offset=len(found)):
                found.extend(line.message for line in page)
        # Task runs finish without a message, or with that of an exception; the flow run with its summary.
        ends = ("Finished in state Completed('", "Finished in state Failed('")
        return any(line.startswith(ends) and "Task run encountered" not in line for line in found)

    until(complete, within_s=30.0)
    return found


def workers_below(pid: int) -> dict[int, str]:
    """The worker processes of a flow's process, and whether each is a gpu or a cpu worker."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_text().split("\0")
        except (OSError, ValueError, IndexError):
            continue
        kind = next((word.removesuffix("-worker") for word in words if word in ("gpu-worker", "cpu-worker")), None)
        if parent == pid and kind is not None:
            found[int(entry.name)] = kind
    return found


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of stdout."""
        answer: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return answer


class CommandLine:
    """`nightscribe` in a process of its own."""

    def __init__(self, url: str | None) -> None:
        self.environment = {"PYTHONPATH": str(ROOT), "COLUMNS": "300"}
        if url is not None:
            self.environment["PREFECT_API_URL"] = url

    def start(self, *arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from flows.cli import main; main()", *map(str, arguments)],
            env=os.environ | self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str | Path, **variables: str) -> Said:
        process = self.start(*arguments, **variables)
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        return Said(process.returncode, out, err)


@pytest.fixture
def night_process(prefect_url: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `tests.flows.night_process` with these parameters, and ends what is left of it."""
    started: list[subprocess.Popen[str]] = []

    def start(**wish: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.night_process", json.dumps(wish)],
            cwd=ROOT,
            env=os.environ | {"PREFECT_API_URL": prefect_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], within_s: float = 90.0) -> Said:
    out, err = process.communicate(timeout=within_s)
    return Said(process.returncode, out, err)


@pytest.fixture
def command_line(prefect_url: str) -> CommandLine:
    return CommandLine(prefect_url)
