"""The embedded Prefect server of a run that has no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from flows.embedded_server import start_embedded_server
from tests.flows.conftest import ROOT
from tests.tasks.waiting import gone, until

_START = """
from flows.prefect_environment import set_defaults
set_defaults(verbose=False)
from flows.embedded_server import start_embedded_server
server = start_embedded_server()
assert start_embedded_server() is server
server.ready()
print(server.pid, flush=True)
input()
"""


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path)}
    command = subprocess.Popen(
        [sys.executable, "-c", _START], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert command.stdout is not None
        pid = int(command.stdout.readline())
        assert not gone(pid)
        command.kill()
        assert command.wait(timeout=10.0) == -signal.SIGKILL
        until(lambda: gone(pid), within_s=10.0)
    finally:
        command.kill()
        command.communicate()


def test_one_that_cannot_start_is_said_with_its_settings(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path)}
    environment |= {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path}/no/such/folder.db"}
    done = subprocess.run([sys.executable, "-c", _START], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Prefect's embedded server ended with status 3 (PREFECT_HOME {tmp_path}" in done.stderr


def test_none_is_started_beside_a_lasting_one(prefect_api: str) -> None:
    assert start_embedded_server() is None
