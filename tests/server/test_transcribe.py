"""POST /transcribe and what stands beside it, on a real server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from stt_engine import WhisperSTT
from tests.server.conftest import CLIP_TEXT
from tests.server.running import Running


def test_answers_with_the_fields_that_are_promised(client: httpx.Client, clip: bytes) -> None:
    answer = client.post("/transcribe", files={"file": ("clip.flac", clip)}, data={"language": "en"})
    assert answer.status_code == 200
    found = answer.json()
    assert found["text"] == CLIP_TEXT
    assert (found["language"], found["backend"], found["model"]) == ("en", "faster-whisper", "fixture")
    assert found["duration"] == pytest.approx(2.62, abs=0.01)
    assert found["segments"][0]["start"] < found["segments"][0]["end"] <= found["duration"]
    assert found["request_id"] == answer.headers["x-request-id"]


def test_says_what_the_engine_says(client: httpx.Client, samples: Path, fixture_model: Path) -> None:
    engine = WhisperSTT(fixture_model, device="cpu", backend="faster-whisper", cpu_threads=1)
    for name in ("ko_000.flac", "en_long0.flac", "ko_long1.flac", "silence.flac"):
        expected = engine.transcribe(samples / name)
        found = client.post("/transcribe", files={"file": (name, (samples / name).read_bytes())}).json()
        assert (found["text"], found["language"]) == (expected.text, expected.language)
        assert [s["start"] for s in found["segments"]] == [s.start_s for s in expected.segments]


def test_words_prompt_hotwords_and_backend(client: httpx.Client, clip: bytes) -> None:
    asked = {"timestamps": "word", "prompt": "calls", "hotwords": "week", "backend": "faster-whisper", "language": "en"}
    answer = client.post("/transcribe", files={"file": ("clip.flac", clip)}, data=asked)
    assert answer.status_code == 200
    words = [word for segment in answer.json()["segments"] for word in segment["words"]]
    assert "".join(w["word"] for w in words).strip() == answer.json()["text"].strip()


def test_parallel_clients_get_their_own_words(server: Running, samples: Path) -> None:
    reference = [json.loads(line) for line in (samples / "reference.jsonl").read_text().splitlines()]
    sentences = [entry for entry in reference if entry.get("kind") == "sentence"][:24]
    batches_before = server.metric("stt_batch_windows_count")

    def heard(name: str) -> str:
        content = (samples / name).read_bytes()
        answer = httpx.post(f"{server.url}/transcribe", files={"file": (name, content)}, timeout=60)
        answer.raise_for_status()
        return str(answer.json()["text"])

    with ThreadPoolExecutor(24) as pool:
        texts = list(pool.map(heard, [entry["file"] for entry in sentences]))
    right = sum(text == entry["text"] for text, entry in zip(texts, sentences, strict=True))
    assert right >= 22, [(t, e["text"]) for t, e in zip(texts, sentences, strict=True) if t != e["text"]]
    assert server.metric("stt_batch_windows_count") - batches_before < 24, "no two requests shared a device batch"


def test_the_clients_own_request_id_is_kept_when_harmless(client: httpx.Client, server: Running, clip: bytes) -> None:
    sent = {"file": ("von Müller\n2026-01-01 INFO forged.flac", clip)}
    answer = client.post("/transcribe", files=sent, headers={"X-Request-ID": "order-4711"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "order-4711"
    log = server.log.read_text()
    assert "request_id=order-4711 received: file=" in log
    assert "\n2026-01-01 INFO forged" not in log
    odd = client.get("/health", headers={"X-Request-ID": "a b\\c"})
    assert odd.headers["x-request-id"] != "a b\\c"


def test_no_word_of_a_transcript_is_logged(client: httpx.Client, server: Running, samples: Path) -> None:
    content = (samples / "en_long0.flac").read_bytes()
    text = client.post("/transcribe", files={"file": ("a.flac", content)}).json()["text"]
    log = server.log.read_text()
    assert len(text) > 100
    for position in range(0, len(text) - 15, 15):
        assert text[position : position + 15] not in log


def test_health_ready_metrics(client: httpx.Client, server: Running) -> None:
    assert client.get("/health").json()["status"] == "ok"
    ready = client.get("/ready").json()
    assert (ready["state"], ready["backends"], ready["device"]) == ("ready", ["faster-whisper"], "cpu")
    page = client.get("/metrics").text
    for name in ("stt_queue_chunks", "stt_batch_windows", "stt_rtfx", "stt_resident_bytes", "stt_errors"):
        assert f"# TYPE {name}" in page
    assert server.metric("stt_resident_bytes") > 50e6


def test_memory_stays_flat_over_a_hundred_requests(server: Running, clip: bytes) -> None:
    def send(_: int) -> None:
        httpx.post(
            f"{server.url}/transcribe", files={"file": ("a.flac", clip)}, data={"language": "en"}, timeout=60
        ).raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(20)))
        before_mb = server.resident_mb
        list(pool.map(send, range(80)))
    assert server.resident_mb < before_mb + 25
