"""`batch_transcribe.py` and `nightscribe client` against the real server, and against one that misbehaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import CLIP_TEXT
from tests.server.running import ROOT, Running


@pytest.fixture
def folder(tmp_path: Path, samples: Path) -> Path:
    folder = tmp_path / "audio"
    (folder / "하위").mkdir(parents=True)
    shutil.copy(samples / "en_000.flac", folder)
    shutil.copy(samples / "ko_003.flac", folder / "하위")
    (folder / "notes.wav").write_text("not a recording")
    (folder / "readme.txt").write_text("not looked at")
    return folder


def run(folder: Path, url: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STT_URL": url, "XDG_CACHE_HOME": str(folder.parent / "cache"), **variables}
    environment.pop("NIGHTSCRIBE_CACHE_DIR", None)
    return subprocess.run(
        [sys.executable, str(ROOT / "batch_transcribe.py"), str(folder), *options],
        env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=folder.parent,
    )  # fmt: skip


def journals(folder: Path) -> list[Path]:
    return list((folder.parent / "cache").rglob("*.jsonl"))


def test_rows_for_a_folder(server: Running, folder: Path) -> None:
    done = run(folder, server.url)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["file"] for row in rows] == ["en_000.flac", "notes.wav", "하위/ko_003.flac"]
    assert (rows[0]["text"], rows[0]["language"], rows[0]["duration"]) == (
        CLIP_TEXT,
        "en",
        pytest.approx(2.62, abs=0.01),
    )
    assert rows[1]["text"] is None
    assert "415" in rows[1]["error"]
    assert "파란 화면이" in done.stdout, "Korean stays readable"
    assert "[3/3]" in done.stderr
    assert "2 of 3 files transcribed, 1 failed for good, 0 left" in done.stderr
    assert not journals(folder), "no transcripts are left behind"
    lines = run(folder, server.url, "--lines").stdout.splitlines()
    assert [json.loads(line)["file"] for line in lines] == [row["file"] for row in rows]


@contextmanager
def server_that(answer: Any) -> Iterator[str]:
    """`answer(file_name, attempt)` gives status, headers, body."""
    attempts: dict[str, int] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {}, {"status": "ok"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            name = body.partition(b'filename="')[2].partition(b'"')[0].decode()
            with lock:
                attempts[name] = attempts.get(name, 0) + 1
            self._send(*answer(name, attempts[name]))

        def _send(self, status: int, headers: dict[str, str], body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()


GOOD = {"text": "said", "language": "en", "duration": 1.0}
BUSY = {"error": {"message": "later"}}


def test_busy_servers_are_asked_again(folder: Path) -> None:
    def busy_once(name: str, attempt: int) -> tuple[int, dict[str, str], dict[str, Any]]:
        if attempt == 1:
            return (429, {"Retry-After": "1"}, BUSY) if name == "en_000.flac" else (503, {}, BUSY)
        return 200, {}, GOOD

    with server_that(busy_once) as url:
        done = run(folder, url)
    assert done.returncode == 0, done.stderr
    assert [row["text"] for row in json.loads(done.stdout)] == ["said"] * 3


def test_what_is_left_is_3_and_the_next_run_goes_on(folder: Path) -> None:
    seen: list[str] = []

    def one_fails(name: str, attempt: int) -> tuple[int, dict[str, str], dict[str, Any]]:
        seen.append(name)
        return (500, {}, BUSY) if name == "notes.wav" else (200, {}, GOOD)

    with server_that(one_fails) as url:
        done = run(folder, url, "--attempts", "2")
        assert done.returncode == 3
        rows = json.loads(done.stdout)
        assert [row["retryable"] for row in rows if "error" in row] == [True]
        assert "1 left" in done.stderr
        assert seen.count("notes.wav") == 2
        (journal,) = journals(folder)
        assert journal.stat().st_mode & 0o777 == 0o600
        with journal.open("a") as file:
            file.write('\n{"version": "cut sho')
        seen.clear()
        again = run(folder, url, "--attempts", "1")
        assert seen == ["notes.wav"]
        assert [row["file"] for row in json.loads(again.stdout)] == [row["file"] for row in rows]
        fresh = run(folder, url, "--attempts", "1", "--fresh")
        assert len(seen) == 4
        assert fresh.returncode == 3


def test_nothing_can_be_sent(folder: Path, strict_server: Running) -> None:
    done = run(folder, "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "nightscribe serve" in done.stderr
    assert run(folder / "missing", strict_server.url).returncode == 2
    refused = run(folder, strict_server.url, STT_API_KEY="wrong-key")
    assert refused.returncode == 2
    assert "STT_API_KEY" in refused.stderr
