"""STT_REQUEST_SECONDS: what is not done by then is answered, and its work dropped."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from tests.server.conftest import CLIP_TEXT
from tests.server.running import Running, head_bytes, running_service

REQUEST_S = 4.0
TOO_LONG_S = 1800


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_service(tmp_path_factory.mktemp("hurried"), request_seconds=REQUEST_S, model_copies=1) as running:
        yield running


@pytest.fixture(scope="module")
def too_long(samples: Path) -> bytes:
    """Much more speech than is heard in that time."""
    speech, rate_hz = soundfile.read(samples / "ko_long2.flac", dtype="float32")
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", rate_hz, 1, format="FLAC") as file:
        for start in range(0, TOO_LONG_S * rate_hz, rate_hz):
            file.write(np.take(speech, range(start, start + rate_hz), mode="wrap"))
    return content.getvalue()


def post(server: Running, path: str, content: bytes, **form: str) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", files={"file": ("some.flac", content)}, data=form, timeout=60)


@pytest.mark.parametrize("stream", [False, True])
def test_is_answered_and_its_work_is_dropped(hurried: Running, too_long: bytes, clip: bytes, stream: bool) -> None:
    form = {"language": "ko", "stream": "true"} if stream else {"language": "ko"}
    path = "/v1/audio/transcriptions" if stream else "/transcribe"
    heard_before_s = hurried.metric("stt_audio_seconds_total")
    started_s = time.monotonic()
    answer = post(hurried, path, too_long, **form)
    assert REQUEST_S - 0.1 < time.monotonic() - started_s < REQUEST_S + 5
    if stream and answer.status_code == 200:  # something was heard in time: the error ends the stream
        error = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))["error"]
    else:
        assert answer.status_code == 504, answer.text
        error = answer.json()["error"]
    assert error["code"] == "request_timeout"
    assert "STT_REQUEST_SECONDS" in error["message"]
    hurried.wait_for("stt_requests_in_flight", 0)
    hurried.wait_for("stt_queue_chunks", 0)
    give_up_s = time.monotonic() + 60
    while (again := post(hurried, "/transcribe", clip, language="en")).status_code == 504:
        assert time.monotonic() < give_up_s, "the device batch that was under way never ends"
    assert again.json()["text"] == CLIP_TEXT
    assert hurried.metric("stt_audio_seconds_total") - heard_before_s < TOO_LONG_S / 2


def test_an_upload_that_comes_too_slowly(hurried: Running) -> None:
    """Never still, and above the least speed of senders: only the time that a request has ends it."""
    connection = hurried.connect()
    connection.sendall(head_bytes(10_000_000) + b'--limit\r\nContent-Disposition: form-data; name="file"\r\n\r\n')
    connection.settimeout(0.1)
    give_up_s = time.monotonic() + REQUEST_S + 5
    answer = b""
    while not answer:
        assert time.monotonic() < give_up_s, "still reading"
        connection.sendall(bytes(2000))
        try:
            answer = connection.recv(10_000)
        except TimeoutError:
            continue
    assert b" 504 " in answer.splitlines()[0]
    connection.close()
    hurried.wait_for("stt_requests_in_flight", 0)
