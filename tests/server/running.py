"""`nightscribe serve` as a process of its own, on the built-in model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 60.0


@dataclass(frozen=True)
class Running:
    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def metric(self, name: str) -> float:
        page = httpx.get(f"{self.url}/metrics").text
        return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))

    def wait_for(self, name: str, value: float, within_s: float = 15.0) -> None:
        give_up_s = time.monotonic() + within_s
        while (found := self.metric(name)) != value:
            assert time.monotonic() < give_up_s, f"{name} stays at {found}, not {value}"
            time.sleep(0.05)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


@contextmanager
def running_service(folder: Path, *, poison: bool = False, **settings: object) -> Iterator[Running]:
    """`settings` as the STT_ variables are called, in small letters. Ready when it is given out.

    With `poison` its decoders misbehave for certain file names (`tests/faults/poison`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STT_")}
    environment |= {"PYTHONPATH": str(ROOT), "STT_MODEL": "fixture", "STT_DEVICE": "cpu", "STT_PORT": str(port)}
    environment |= {f"STT_{name.upper()}": str(value) for name, value in settings.items()}
    if poison:
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "faults" / "poison"), str(ROOT)])
        environment["POISON_JOURNAL"] = str(folder / "journal")
    log = folder / "serve.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", "from flows.cli import main; main()", "serve"],
            env=environment,
            cwd=folder,
            stdout=sink,
            stderr=sink,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        give_up_s = time.monotonic() + START_S
        while not _ready(url):
            assert process.poll() is None and time.monotonic() < give_up_s, log.read_text()[-3000:]
            time.sleep(0.05)
        yield Running(url, port, process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def form_bytes(content: bytes, *, file_name: str = "clip.flac", boundary: str = "limit", **fields: str) -> bytes:
    """A multipart body by hand, for what a client library would never send."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n\r\n'
    return b"".join([*parts, head.encode(), content, f"\r\n--{boundary}--\r\n".encode()])


def head_bytes(length: int, *, path: str = "/transcribe", boundary: str = "limit", extra: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n{extra}\r\n"
    ).encode()
