"""What is not transcribed: each with its status, the field named, and the server unharmed."""

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

from tests.server.conftest import CLIP_TEXT, KEY, MAX_AUDIO_S, MAX_UPLOAD_BYTES
from tests.server.running import Running, form_bytes, head_bytes


@pytest.fixture(autouse=True)
def _goes_on(server: Running, clip: bytes) -> Iterator[None]:
    """One bad request does not harm the next."""
    yield
    answer = httpx.post(f"{server.url}/transcribe", files={"file": ("clip.flac", clip)}, timeout=60)
    assert answer.json()["text"] == CLIP_TEXT


def error_of(answer: httpx.Response, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"]
    error: dict[str, str] = body["error"]
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("language", "klingon"),
        ("backend", "openai-whisper"),
        ("task", "sing"),
        ("timestamps", "minute"),
        ("prompt", "x" * 5000),
        ("colour", "red"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(client: httpx.Client, clip: bytes, field: str, value: str) -> None:
    error = error_of(client.post("/transcribe", files={"file": ("a.flac", clip)}, data={field: value}), 422)
    assert error["param"] == field
    assert field in error["message"]


def test_a_form_without_a_recording(client: httpx.Client) -> None:
    assert error_of(client.post("/transcribe", files={"other": b"x"}), 422)["param"] == "other"
    boundary = {"Content-Type": "multipart/form-data; boundary=limit"}
    only_field = b'--limit\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n--limit--\r\n'
    assert error_of(client.post("/transcribe", content=only_field, headers=boundary), 422)["param"] == "file"
    assert error_of(client.post("/transcribe", content=only_field[:-8], headers=boundary), 400)
    assert error_of(client.post("/transcribe", content=b"nonsense", headers=boundary), 400)
    assert error_of(client.post("/transcribe", json={"file": "x"}), 415)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"this is not a recording", 415),
        (b"", 422),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", 422),
        (b"\x89PNG\r\n\x1a\n", 415),
    ],
)
def test_what_is_no_audio(client: httpx.Client, content: bytes, status: int) -> None:
    assert error_of(client.post("/transcribe", files={"file": ("a.wav", content)}), status)["param"] == "file"


def test_paths_and_methods_that_there_are_not(client: httpx.Client) -> None:
    assert error_of(client.get("/nothing"), 404)["code"] == "not_found"
    assert error_of(client.get("/transcribe"), 405)["code"] == "method_not_allowed"


@pytest.mark.parametrize("announced", [True, False])
def test_too_many_bytes_are_refused_before_they_are_all_there(server: Running, announced: bool) -> None:
    sent_bytes = 0

    def body() -> Iterator[bytes]:
        nonlocal sent_bytes
        yield form_bytes(b"")[: -len(b"\r\n--limit--\r\n")]
        for _ in range(40 * MAX_UPLOAD_BYTES // 65536):
            sent_bytes += 65536
            yield bytes(65536)

    headers = {"Content-Type": "multipart/form-data; boundary=limit"}
    if announced:
        headers["Content-Length"] = str(40 * MAX_UPLOAD_BYTES)
    answer = httpx.post(f"{server.url}/transcribe", content=body(), headers=headers, timeout=30)
    assert error_of(answer, 413)["param"] == "file"
    assert sent_bytes < 15 * MAX_UPLOAD_BYTES


def test_a_bomb_is_stopped_while_it_is_decoded(client: httpx.Client) -> None:
    bomb = io.BytesIO()
    with soundfile.SoundFile(bomb, "w", 8000, 1, format="FLAC") as file:
        for _ in range(10):
            file.write(np.zeros(8000 * 3600, dtype=np.int16))
    assert len(bomb.getvalue()) < MAX_UPLOAD_BYTES
    started_s = time.monotonic()
    error = error_of(client.post("/transcribe", files={"file": ("bomb.flac", bomb.getvalue())}), 413)
    assert f"{MAX_AUDIO_S} s" in error["message"]
    assert time.monotonic() - started_s < 20


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd.flac", "C:\\\\evil\\\\x.flac", "/dev/zero", "a\x00b.flac", "é" * 400]
)
def test_a_name_is_never_a_path(server: Running, clip: bytes, name: str) -> None:
    boundary = {"Content-Type": "multipart/form-data; boundary=limit"}
    body = form_bytes(clip, file_name=name)
    answer = httpx.post(f"{server.url}/transcribe", content=body, headers=boundary, timeout=30)
    assert answer.json()["text"] == CLIP_TEXT
    assert not list(server.log.parent.rglob("*.flac"))


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "é".encode()}])
def test_without_the_key(strict_server: Running, clip: bytes, headers: dict[str, str]) -> None:
    url = f"{strict_server.url}/transcribe"
    answer = httpx.post(url, files={"file": ("a.flac", clip)}, headers=headers)
    assert error_of(answer, 401)["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{strict_server.url}/v1/models", headers=headers).status_code == 401
    assert httpx.get(f"{strict_server.url}/ready").status_code == 200


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_with_the_key(strict_server: Running, clip: bytes, headers: dict[str, str]) -> None:
    answer = httpx.post(
        f"{strict_server.url}/transcribe", files={"file": ("a.flac", clip)}, headers=headers, timeout=30
    )
    assert answer.json()["text"] == CLIP_TEXT
    assert KEY not in strict_server.log.read_text()


def test_senders_that_stand_still_hold_no_place(strict_server: Running, clip: bytes) -> None:
    """Two of them fill the queue: the next is told to come back, and can, once they have been dropped."""
    url, key = f"{strict_server.url}/transcribe", {"X-API-Key": KEY}
    begun = []
    for _ in range(2):
        connection = strict_server.connect()
        connection.sendall(head_bytes(100_000, extra=f"X-API-Key: {KEY}\r\n") + form_bytes(clip)[:500])
        begun.append(connection)
    strict_server.wait_for("stt_requests_in_flight", 2)
    full = httpx.post(url, files={"file": ("a.flac", clip)}, headers=key)
    assert error_of(full, 429)["code"] == "queue_full"
    assert int(full.headers["retry-after"]) >= 1
    for connection in begun:
        answer = connection.recv(10_000)
        assert b" 408 " in answer.splitlines()[0]
        connection.close()
    strict_server.wait_for("stt_requests_in_flight", 0)
    assert httpx.post(url, files={"file": ("a.flac", clip)}, headers=key, timeout=30).status_code == 200


def test_a_trickled_head_is_cut_off(strict_server: Running) -> None:
    connection = strict_server.connect()
    started_s = time.monotonic()
    connection.sendall(b"POST /transcribe HTTP/1.1\r\n")
    try:
        while time.monotonic() < started_s + 10:
            connection.sendall(b"X")
            connection.settimeout(0.2)
            try:
                if connection.recv(100) == b"":
                    break
            except TimeoutError:
                continue
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_work(server: Running, samples: Path, stream: bool) -> None:
    speech, rate_hz = soundfile.read(samples / "ko_long2.flac", dtype="float32")
    long = io.BytesIO()
    with soundfile.SoundFile(long, "w", rate_hz, 1, format="OGG", subtype="VORBIS") as file:
        for start in range(0, 400 * rate_hz, rate_hz):  # libsndfile crashes on long stretches at once
            file.write(np.take(speech, range(start, start + rate_hz), mode="wrap"))
    body = form_bytes(long.getvalue(), language="ko", stream="true") if stream else form_bytes(long.getvalue())
    path = "/v1/audio/transcriptions" if stream else "/transcribe"
    heard_before_s = server.metric("stt_audio_seconds_total")
    connection = server.connect()
    connection.sendall(head_bytes(len(body), path=path) + body)
    server.wait_for("stt_requests_in_flight", 1)
    if stream:
        assert b"200" in connection.recv(100)
    time.sleep(0.3)
    connection.close()
    server.wait_for("stt_requests_in_flight", 0, within_s=5)
    server.wait_for("stt_queue_chunks", 0)
    assert server.metric("stt_audio_seconds_total") - heard_before_s < 250


def test_every_refusal_counts(server: Running) -> None:
    assert server.metric("stt_errors_total") > 5
    page = httpx.get(f"{server.url}/metrics").text
    assert json.dumps("not_audio") in page
