"""As much of the Hub as fetching a model takes, on loopback: the listing, HEAD and GET of files; requests noted."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class SmallHub:
    """Serves `repos`, each a directory, and notes every request."""

    repos: dict[str, Path]
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    cut_short: set[str] = field(default_factory=set)
    """Files whose next GET breaks off half way."""
    status: int = 200
    """Other than 200: the answer to everything."""


@contextmanager
def running_hub(repos: dict[str, Path]) -> Iterator[SmallHub]:
    hub = SmallHub(repos)

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: SmallHub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the requests are noted instead."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        self.served.requests.append(f"{self.command} {path}")
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path)
        resolving = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        repo = (listing or resolving or [None, None])[1]
        if self.served.status != 200:
            self._send(self.served.status, b"{}", {}, with_body)
        elif repo not in self.served.repos:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        elif listing:
            self._send(200, self._listing(repo), {"Content-Type": "application/json"}, with_body)
        elif not (file := self.served.repos[repo] / resolving[2]).is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)
        else:
            content = file.read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            self._send(200, content, headers, with_body, cut=with_body and file.name in self.served.cut_short)
            if with_body:
                self.served.cut_short.discard(file.name)

    def _listing(self, repo: str) -> bytes:
        folder = self.served.repos[repo]
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": str(path.relative_to(folder)), "size": path.stat().st_size} for path in files]
        return json.dumps({"_id": "1", "id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}).encode()

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool, *, cut: bool = False) -> None:
        first = 0
        if status == 200 and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            first, status = int(asked[1]), 206
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        if with_body:
            self.wfile.write(body[first : first + len(body[first:]) // 2] if cut else body[first:])
            if cut:
                self.close_connection = True


def python_process(code: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code with a cache of its own: the Hub client reads HF_ENDPOINT and HF_HUB_OFFLINE when imported."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"HF_HUB_OFFLINE", "HF_ENDPOINT"}}
    caches = {"NIGHTSCRIBE_CACHE_DIR": str(cache), "HF_HOME": str(cache / "hub")}
    header = "from stt_engine import models\nfrom stt_engine.errors import *\n"
    return subprocess.run(
        [sys.executable, "-c", header + code],
        env={**inherited, **caches, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
