"""A Prefect server of the tests' own: a real `prefect server start`, once per test session, since it takes a while."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

START_S = 120.0


class PrefectServer:
    """`prefect server start` on a port of its own, which may be killed and started again on what it had written."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Of its API."""
        return f"http://127.0.0.1:{self._port}/api"

    def start(self) -> None:
        """Returns when it answers."""
        log = self._home / "server.log"
        with log.open("ab") as sink:
            self._process = server = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port)],
                env=_environment(self._home),
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        give_up_s = time.monotonic() + START_S
        while not _answers(f"{self.url}/health"):
            assert server.poll() is None and time.monotonic() < give_up_s, f"no server: {log.read_text()[-2000:]}"
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, children included."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def running_server(home: Path) -> Iterator[str]:
    """Its API's URL. Database and everything else below `home`; gone afterwards."""
    server = PrefectServer(home)
    try:
        server.start()
        yield server.url
    finally:
        server.kill()


def _environment(home: Path) -> Mapping[str, str]:
    return os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": "",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    }


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
