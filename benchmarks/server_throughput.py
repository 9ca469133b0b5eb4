"""How much a server does: one client after the other, 32 at once, and the plain loop that teams write first.

    python benchmarks/server_throughput.py [--model fixture] [--device cpu] [--clips 96] [--memory 1000]

Prints Markdown. Each server is a process of its own; the clients are threads of this one, as they would share the
machine in the smallest set-up. Clips are 8 s long, FLAC, cut from the recordings of the tests.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
CLIP_S = 8.0
RATE_HZ = 16_000


@dataclass(frozen=True, slots=True)
class Measured:
    """One stretch: `others` is the share of the machine that neither server nor clients used."""

    clips: int
    wall_s: float
    median_s: float
    worst_s: float
    server_cpu_s: float
    others: float

    @property
    def clips_per_s(self) -> float:
        return self.clips / self.wall_s


def row(server: str, clients: int, rounds: list[Measured], alone: list[Measured]) -> str:
    rates = [m.clips_per_s for m in rounds]
    gains = [m.clips_per_s / a.clips_per_s for m, a in zip(rounds, alone, strict=True)]
    middle = statistics.median
    return (
        f"| {server} | {clients} | {middle(rates):.2f} ({min(rates):.2f} to {max(rates):.2f}) "
        f"| {middle(rates) * CLIP_S:.0f} | {middle(m.median_s for m in rounds):.2f} "
        f"| {max(m.worst_s for m in rounds):.2f} | {1000 * middle(m.server_cpu_s / m.clips for m in rounds):.0f} "
        f"| {middle(gains):.2f} ({min(gains):.2f} to {max(gains):.2f}) |"
    )


def cpu_seconds(process: int | str) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(process: int) -> list[int]:
    """A server and the processes that it has started."""
    children = Path(f"/proc/{process}/task").glob("*/children")
    return [process, *(int(pid) for listed in children for pid in listed.read_text().split())]


def machine_busy_s() -> float:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def write_clips(folder: Path, count: int) -> list[Path]:
    """Sentences with half a second between them, as many whole ones as fit, silence after them up to 8 s."""
    recordings = sorted((ROOT / "tests" / "data" / "samples").glob("en_0*.flac"))
    sentences = [soundfile.read(path, dtype="float32")[0] for path in recordings]
    paths = []
    for number in range(count):
        clip = np.zeros(int(CLIP_S * RATE_HZ), dtype=np.float32)
        position = 0
        for step in range(len(sentences)):
            sentence = sentences[(number + step) % len(sentences)]
            if position + len(sentence) > len(clip):
                break
            clip[position : position + len(sentence)] = sentence
            position += len(sentence) + RATE_HZ // 2
        paths.append(folder / f"clip_{number:04d}.flac")
        soundfile.write(paths[-1], clip, RATE_HZ)
    return paths


@contextmanager
def server(command: list[str], environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    """The server's address and process id, once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "STT_PORT": str(port), **environment}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(1200):
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read().decode())
                try:
                    if httpx.get(f"{url}/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
            yield url, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def measure(url: str, process: int, clips: list[Path], clients: int) -> Measured:
    contents = [clip.read_bytes() for clip in clips]
    with httpx.Client(base_url=url, timeout=600, limits=httpx.Limits(max_connections=clients)) as client:

        def send(content: bytes) -> float:
            started_s = time.perf_counter()
            answer = client.post("/transcribe", files={"file": ("clip.flac", content)}, data={"language": "en"})
            answer.raise_for_status()
            assert answer.json()["text"]
            return time.perf_counter() - started_s

        processes = family(process)
        busy_s, server_s, own_s = machine_busy_s(), sum(map(cpu_seconds, processes)), cpu_seconds("self")
        started_s = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            took_s = list(pool.map(send, contents))
        wall_s = time.perf_counter() - started_s
        busy_s, server_s = machine_busy_s() - busy_s, sum(map(cpu_seconds, processes)) - server_s
        others = (busy_s - server_s - (cpu_seconds("self") - own_s)) / (wall_s * (os.cpu_count() or 1))
    return Measured(len(clips), wall_s, statistics.median(took_s), max(took_s), server_s, max(0.0, others))


def both(url: str, process: int, clips: list[Path], clients: int, quiet: float) -> tuple[Measured, Measured]:
    """One client and many, one right after the other, again until nobody else used the machine meanwhile."""
    tries = []
    for _ in range(4):
        pair = (measure(url, process, clips[: max(8, len(clips) // 3)], 1), measure(url, process, clips, clients))
        tries.append(pair)
        if max(m.others for m in pair) < quiet:
            break
    return min(tries, key=lambda pair: max(m.others for m in pair))


def resident_mb(process: int) -> float:
    """Of the server and its children; what they share counts for each."""
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in family(process))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(url: str, process: int, clips: list[Path], count: int) -> list[tuple[int, float]]:
    marks = [mark for mark in (1, 10, 100, 1000) if mark <= count]
    found = []
    sent = 0
    with httpx.Client(base_url=url, timeout=600) as client, ThreadPoolExecutor(4) as pool:

        def send(clip: Path) -> None:
            client.post("/transcribe", files={"file": (clip.name, clip.read_bytes())}).raise_for_status()

        for mark in marks:
            list(pool.map(send, [clips[number % len(clips)] for number in range(sent, mark)]))
            sent = mark
            time.sleep(1)
            found.append((mark, resident_mb(process)))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="fixture")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--clips", type=int, default=96)
    arguments.add_argument("--clients", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--memory", type=int, default=1000)
    arguments.add_argument("--quiet", type=float, default=0.1, help="share of the machine that others may use")
    chosen = arguments.parse_args()
    settings = {"STT_MODEL": chosen.model, "STT_DEVICE": chosen.device}
    ours = [sys.executable, "-c", "from flows.cli import main; main()", "serve"]
    plain = [sys.executable, str(ROOT / "benchmarks" / "plain_server.py")]
    servers = [
        ("plain loop", plain, settings),
        ("nightscribe serve", ours, settings),
        ("nightscribe serve, one copy", ours, {**settings, "STT_MODEL_COPIES": "1"}),
    ]
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    print(
        f"{cpu}, {len(os.sched_getaffinity(0))} cores, {platform.system()}, Python {platform.python_version()}; ",
        end="",
    )
    print(", ".join(f"{name} {version(name)}" for name in ("ctranslate2", "faster-whisper", "fastapi", "uvicorn")))
    print(
        f"model {chosen.model} on {chosen.device}; {chosen.rounds} rounds, which alternate; medians, with the range\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        clips = write_clips(Path(folder), chosen.clips)
        if chosen.rounds:
            found: dict[str, list[tuple[Measured, Measured]]] = {name: [] for name, _, _ in servers}
            with ExitStack() as stack:
                running = [(name, *stack.enter_context(server(command, more))) for name, command, more in servers]
                for _, url, process in running:
                    measure(url, process, clips[:4], 2)  # what only the first requests pay
                for _ in range(chosen.rounds):
                    for name, url, process in running:
                        found[name].append(both(url, process, clips, chosen.clients, chosen.quiet))
            print("| server | clients | clips/s | RTFx | median s | worst s | CPU ms a clip | against its one client |")
            print("|---|---|---|---|---|---|---|---|")
            for name, pairs in found.items():
                alone, many = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
                print(row(name, 1, alone, alone))
                print(row(name, chosen.clients, many, alone))
            shares = [100 * m.others for pairs in found.values() for pair in pairs for m in pair]
            print(
                f"\nOther processes used {statistics.median(shares):.0f} % of the machine, at most {max(shares):.0f} %."
            )
        if chosen.memory:
            print("\n| server | requests | resident MB |\n|---|---|---|")
            for name, command, environment in (servers[1], servers[0]):
                with server(command, environment) as (url, process):
                    for mark, resident in memory(url, process, clips, chosen.memory):
                        print(f"| {name} | {mark} | {resident:.0f} |", flush=True)


if __name__ == "__main__":
    main()
