"""Loading, refusing to start, and the end at SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from stt_engine.server.app import create_app
from stt_engine.server.service import Service
from stt_engine.server.settings import ServerSettings
from tests.server.conftest import CLIP_TEXT
from tests.server.running import ROOT, form_bytes, head_bytes, running_service


def test_answers_503_while_the_model_loads(clip: bytes) -> None:
    service = Service(ServerSettings(model="fixture"), on_failure=lambda error: None)

    async def ask() -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(create_app(service))  # no lifespan: nothing has begun to load
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (
                await client.get("/health"),
                await client.get("/ready"),
                await client.post("/transcribe", files={"file": ("a.flac", clip)}),
            )

    health, ready, refused = asyncio.run(ask())
    assert health.status_code == 200
    assert (ready.status_code, ready.json()["state"]) == (503, "loading")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "loading")
    assert int(refused.headers["retry-after"]) >= 1


def test_sigterm_finishes_what_is_under_way(tmp_path: Path, clip: bytes) -> None:
    with running_service(tmp_path, model_copies=1, drain_seconds=30) as server:
        body = form_bytes(clip, language="en")
        connection = server.connect()
        connection.sendall(head_bytes(len(body)) + body[:1000])
        server.wait_for("stt_requests_in_flight", 1)
        server.process.send_signal(signal.SIGTERM)
        for _ in range(100):
            try:
                server.connect().close()
                time.sleep(0.05)
            except ConnectionRefusedError:
                break
        else:
            pytest.fail("still listening after SIGTERM")
        connection.sendall(body[1000:])
        answer = b""
        while part := connection.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        assert CLIP_TEXT.encode() in answer
        assert server.process.wait(15) == 0


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("STT_MODEL", "no-such-model-anywhere", "no-such-model-anywhere"),
        ("STT_BACKENDS", "whisperx", "--backends"),
        ("STT_MAX_QUEUE", "0", "--max-queue"),
    ],
)
def test_what_cannot_be_used_is_said_and_ends_with_2(setting: str, value: str, said: str) -> None:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "STT_MODEL": "fixture", "STT_PORT": "0", setting: value}
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "serve"],
        env=variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; main()", "serve", "--model", "fixture",
             "--port", str(other.getsockname()[1])],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "STT_PORT" in done.stderr
