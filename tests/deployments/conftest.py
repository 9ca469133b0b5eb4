"""One deployed site for all tests of this room: its server takes some 10 s to start."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.deployments.postgres import missing_binaries, running_postgres
from tests.deployments.site import Site, prefect_site, process_worker


@pytest.fixture(scope="session")
def inbox(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """Three recordings, modified today."""
    folder = tmp_path_factory.mktemp("inbox")
    for name in ("en_000.flac", "en_002.flac", "ko_000.flac"):
        shutil.copyfile(samples / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def alerts() -> Iterator[tuple[str, list[str]]]:
    """The address of a chat's web hook, and the messages that came there."""
    heard: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
        server.shutdown()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, inbox: Path, alerts: tuple[str, list[str]]) -> Iterator[Site]:
    """A server with everything deployed and no worker: on PostgreSQL where it is, since SQLite may lose an event."""
    folder = tmp_path_factory.mktemp("site")
    settings = {
        "NIGHTSCRIBE_SOURCE": str(inbox),
        "NIGHTSCRIBE_DEST": str(folder / "tables"),
        "NIGHTSCRIBE_MODEL": "fixture",
        "NIGHTSCRIBE_DEVICE": "cpu",
        "NIGHTSCRIBE_TIMEZONE": "Asia/Seoul",
        "NIGHTSCRIBE_CRON": "30 2 1 1 *",
        "NIGHTSCRIBE_COMPACT_CRON": "0 3 1 1 *",
        "NIGHTSCRIBE_ALERT_URL": alerts[0],
    }
    with ExitStack() as parts:
        database_url = None if missing_binaries() else parts.enter_context(running_postgres())
        running_site = parts.enter_context(prefect_site(folder, settings, database_url=database_url))
        running_site.deploy()
        yield running_site


@pytest.fixture(scope="module")
def worker(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with process_worker(site, tmp_path_factory.mktemp("worker") / "worker.log"):
        yield
