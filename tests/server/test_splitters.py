"""Uploads that crash, hang or bloat the decoder: refused alone, while the others in the same process are heard."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from tests.server.conftest import CLIP_TEXT
from tests.server.running import Running, running_service


@pytest.fixture(scope="module")
def one_splitter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One splitting process, so that everybody shares it with the file at fault."""
    with running_service(
        tmp_path_factory.mktemp("poison"),
        poison=True,
        decode_processes=1,
        decode_step_seconds=6,  # to eat half a gigabyte takes seconds where others want the machine too
        decode_memory_bytes=2**29,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def long_recording(samples: Path) -> bytes:
    """Minutes of speech, long enough to be under way when others come."""
    speech, rate_hz = soundfile.read(samples / "ko_long2.flac", dtype="float32")
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", rate_hz, 1, format="FLAC") as file:
        for start in range(0, 150 * rate_hz, rate_hz):
            file.write(np.take(speech, range(start, start + rate_hz), mode="wrap"))
    return content.getvalue()


@pytest.fixture(scope="module")
def heard_alone(one_splitter: Running, long_recording: bytes) -> str:
    return str(post(one_splitter, "long.flac", long_recording, "ko").json()["text"])


def post(server: Running, name: str, content: bytes, language: str = "en") -> httpx.Response:
    form = {"language": language}
    return httpx.post(f"{server.url}/transcribe", files={"file": (name, content)}, data=form, timeout=120)


def splitting_processes(server: Running) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True, check=True
    )
    return [int(pid) for pid in listed.stdout.split()]


def wait_for_processes(server: Running, count: int) -> None:
    give_up_s = time.monotonic() + 15
    while len(found := splitting_processes(server)) != count:
        assert time.monotonic() < give_up_s, f"{found}, not {count} processes"
        time.sleep(0.05)


def tries(server: Running, name: str) -> int:
    journal = server.log.parent / "journal"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return sum(json.loads(line).get("split") == name for line in lines)


@pytest.mark.parametrize(
    ("how", "code", "tried"),
    [("segfault", "poisonous_audio", 2), ("spin", "poisonous_audio", 1), ("hang", "poisonous_audio", 1),
     ("eat", "memory_limit", 1)],
)  # fmt: skip
def test_the_one_at_fault_is_refused_alone(
    one_splitter: Running, clip: bytes, long_recording: bytes, heard_alone: str, how: str, code: str, tried: int
) -> None:
    name = f"cpu-{how}.flac"
    with ThreadPoolExecutor(8) as pool:
        long = pool.submit(post, one_splitter, "long.flac", long_recording, "ko")
        one_splitter.wait_for("stt_requests_in_flight", 1)
        poison = pool.submit(post, one_splitter, name, clip)
        others = [pool.submit(post, one_splitter, f"{number}.flac", clip) for number in range(6)]
        refused = poison.result()
        assert [other.result().json()["text"] for other in others] == [CLIP_TEXT] * 6
        assert long.result().json()["text"] == heard_alone
    assert refused.status_code == 422, refused.text
    assert refused.json()["error"]["code"] == code
    assert name in refused.json()["error"]["message"]
    assert refused.json()["error"]["param"] == "file"
    assert tries(one_splitter, name) == tried
    wait_for_processes(one_splitter, 1)  # the ward is empty again
    one_splitter.wait_for("stt_requests_in_flight", 0)


def test_a_process_that_was_killed_from_outside_condemns_nobody(
    one_splitter: Running, long_recording: bytes, heard_alone: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(post, one_splitter, "killed.flac", long_recording, "ko")
        while tries(one_splitter, "killed.flac") == 0:
            time.sleep(0.01)
        (pid,) = splitting_processes(one_splitter)
        os.kill(pid, signal.SIGKILL)
        assert long.result().json()["text"] == heard_alone
    assert tries(one_splitter, "killed.flac") == 2


def test_its_processes_end_with_the_server(tmp_path: Path, clip: bytes) -> None:
    with running_service(tmp_path, decode_processes=2) as server:
        assert post(server, "a.flac", clip).json()["text"] == CLIP_TEXT
        processes = splitting_processes(server)
        assert len(processes) == 2
        server.process.kill()
        server.process.wait()
        give_up_s = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in processes):
            assert time.monotonic() < give_up_s, "splitting processes outlive their server"
            time.sleep(0.05)
