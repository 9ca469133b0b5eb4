"""A whole site on loopback: Prefect server, deployments, process worker, each a real process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx

ROOT = Path(__file__).resolve().parents[2]
PREFECT = (sys.executable, "-m", "prefect")
SIMPLE_FORM = {"modified_since": str(date.today()), "modified_before": str(date.today() + timedelta(days=1))}
"""The days that hold what a test has just written."""


@dataclass(frozen=True)
class Site:
    """A running server, and the environment of everything that talks to it."""

    url: str
    environment: Mapping[str, str]

    def api(self, method: str, path: str, **parameters: Any) -> Any:
        """The answer's JSON. A server on SQLite says 503 while its database is locked: Prefect's client waits too."""
        deadline = time.monotonic() + 20
        while True:
            response = httpx.request(method, f"{self.url}/api{path}", timeout=30, **parameters)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                response.raise_for_status()
                return response.json() if response.content else None
            time.sleep(0.5)

    def command(self, *arguments: str, timeout_s: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            arguments, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout_s
        )
        assert not check or done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    def deploy(self, *arguments: str) -> str:
        return self.command(sys.executable, "scripts/deploy.py", *arguments).stdout

    def deployment(self, name: str) -> Any:
        return self.api("GET", f"/deployments/name/{name}")

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """The id of a run of this deployment that is due at once."""
        found = self.deployment(deployment)
        state = {"type": "SCHEDULED"}
        body = {"parameters": parameters, "state": state, "enforce_parameter_schema": True}
        return str(self.api("POST", f"/deployments/{found['id']}/create_flow_run", json=body)["id"])

    def state(self, flow_run_id: str) -> Any:
        return self.api("GET", f"/flow_runs/{flow_run_id}")["state"]

    def final_state(self, flow_run_id: str, timeout_s: float = 90) -> Any:
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        wait_until(lambda: self.state(flow_run_id)["type"] in final, timeout_s, lambda: str(self.state(flow_run_id)))
        return self.state(flow_run_id)


def wait_until(happened: Callable[[], bool], timeout_s: float, tell: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, f"did not happen within {timeout_s} s; {tell()}"
        time.sleep(0.25)


@contextmanager
def running(
    command: tuple[str, ...], log: Path, environment: Mapping[str, str], *, user: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; the whole session is killed if it does not end on SIGTERM."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True, user=user
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


@contextmanager
def prefect_site(folder: Path, settings: Mapping[str, str], *, database_url: str | None = None) -> Iterator[Site]:
    """A server that keeps everything below `folder`; the settings are those of whoever deploys and works."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # What nobody did for so long is looked at every second, instead of every five.
        "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "NIGHTSCRIBE_HOME": str(ROOT),
        **settings,
    }
    if database_url:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database_url
    log = folder / "server.log"
    with running((*PREFECT, "server", "start", "--port", str(port)), log, environment) as server:
        site = Site(url, environment)

        def healthy() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                return httpx.get(f"{url}/api/health").is_success
            except httpx.TransportError:
                return False

        wait_until(healthy, 120, log.read_text)
        yield site


@contextmanager
def process_worker(site: Site, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that says it is well, started as the containers start it."""
    port = free_port()
    environment = {**site.environment, "PREFECT_WORKER_WEBSERVER_PORT": str(port)}
    command = (*PREFECT, "worker", "start", "--pool", "gpu", "--with-healthcheck")

    def well() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health").is_success
        except httpx.TransportError:
            return False

    with running(command, log, environment) as worker:
        wait_until(well, 60, log.read_text)
        yield worker


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def landed(dest: Path) -> list[tuple[str, str]]:
    """(file name, text) of every landed row, by file name."""
    parts = f"{dest}/transcripts/*/*.parquet"
    rows = duckdb.sql(
        f"SELECT parse_filename(source_uri), text FROM '{parts}' WHERE status = 'landed' ORDER BY 1"
    ).fetchall()
    return [(str(name), str(text)) for name, text in rows]
