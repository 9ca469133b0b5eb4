"""The whole of Nightscribe on one GPU: how busy it keeps it, and what its server does for 32 clients.

    python -m benchmarks.gpu_flow [--files 600] [--workers 1,2] [--only flow,server] [--folder /tmp/gpu]

Prints Markdown. The model is the random large-v3-turbo of `benchmarks/gpu.py`; the recordings are those of the tests,
some 100 s each, under as many names as are asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx
import numpy as np

from benchmarks.gpu import turbo
from stt_engine.devices import usable_cores

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "tests" / "data" / "samples"
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]
CLIENTS, CLIP_S, RATE_HZ = 32, 8.0, 16_000


def recordings(folder: Path, count: int) -> Path:
    source = folder / f"calls-{count}"
    if not source.exists():
        originals = sorted(SAMPLES.glob("??_long*.flac"))
        kept = folder / "originals"
        kept.mkdir(parents=True, exist_ok=True)
        copies = [Path(shutil.copy(path, kept)) for path in originals]
        source.mkdir()
        for number in range(count):
            os.link(copies[number % len(copies)], source / f"{number:05d}.flac")
    return source


@contextmanager
def use_over_time() -> Iterator[list[tuple[float, int]]]:
    """(time in s, what NVML says of the GPU's use in percent), ten times a second."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    seen: list[tuple[float, int]] = []
    over = Event()

    def look() -> None:
        while not over.wait(0.1):
            seen.append((time.perf_counter(), int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)))

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def working_stretch(seen: list[tuple[float, int]]) -> list[int]:
    """From the first second that the GPU is mostly busy in to the last: without loading and what follows the work."""
    use = [percent for _, percent in seen]
    busy = [i for i in range(len(use) - 10) if np.mean(use[i : i + 10]) > 50]
    return use[busy[0] : busy[-1] + 10] if busy else use


def flow(folder: Path, n_files: int, workers: int, more: list[str], within_s: float) -> None:
    dest = folder / f"tables-{time.time_ns()}"
    command = [*COMMAND, "run", str(recordings(folder, n_files)), str(dest), "--model", str(turbo(folder)),
               "--backend", "transformers", "--device", "cuda", "--gpu-workers", str(workers), "--json",
               *more]  # fmt: skip
    with use_over_time() as seen:
        began_s = time.perf_counter()
        log = (folder / "flow.log").open("w")
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True,
                                   start_new_session=True)  # fmt: skip
        try:
            said, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)  # its workers too: the next measurement is not to run beside them
            said, _ = process.communicate()
        whole_s = time.perf_counter() - began_s
    if process.returncode != 0:
        print(f"exit status {process.returncode}\n" + (folder / "flow.log").read_text()[-3000:])
        return
    found = json.loads(said.splitlines()[-1])
    stretch = working_stretch(seen)
    print(f"| {workers} | {' '.join(more)} | {found['landed']} of {n_files} | {found['audio_seconds'] / 3600:.1f} "
          f"| {whole_s:.0f} | {found['wall_seconds']:.1f} | {len(stretch) / 10:.1f} | {np.mean(stretch):.0f} "
          f"| {found['audio_seconds'] / (len(stretch) / 10):,.0f} | {worker_seconds(dest)} |", flush=True)  # fmt: skip


def worker_seconds(dest: Path) -> str:
    """By stage, of all workers together, from the run's own record."""
    (record,) = (json.loads(path.read_text()) for path in (dest / "_runs").glob("*.json"))
    counts = record["counts"].items()
    return ", ".join(f"{n.removeprefix('stage_').removesuffix('_s')} {s:.0f}" for n, s in counts if n[:6] == "stage_")


def clips(folder: Path, count: int) -> list[bytes]:
    """8 s each, WAV."""
    from stt_engine.split import SplitOptions, split_audio

    audio = next(iter(split_audio(SAMPLES / "en_long0.flac", file_id="a", name="a", options=SplitOptions())))
    contents = []
    for number in range(count):
        samples = np.roll(audio.samples, number * 997)[: int(CLIP_S * RATE_HZ)]
        path = folder / "clip.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        contents.append(path.read_bytes())
    return contents


def server(folder: Path) -> None:
    port = 8765
    environment = {"STT_MODEL": str(turbo(folder)), "STT_DEVICE": "cuda", "STT_BACKENDS": "transformers",
                   "STT_PORT": str(port)}  # fmt: skip
    log = (folder / "server.log").open("w")
    process = subprocess.Popen([*COMMAND, "serve"], cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60,
                          limits=httpx.Limits(max_connections=CLIENTS)) as client:  # fmt: skip
            for _ in range(600):
                try:
                    if client.get("/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)

            def send(content: bytes) -> None:
                answer = client.post("/transcribe", files={"file": ("a.wav", content)}, data={"language": "ko"})
                answer.raise_for_status()

            print("\n| clients | clips of 8 s | clips/s |\n|---|---|---|")
            for n_clients, count in ((1, 8), (CLIENTS, 64), (1, 64), (CLIENTS, 1024), (1, 64), (CLIENTS, 1024)):
                contents = clips(folder, min(count, 64)) * (count // min(count, 64))
                began_s = time.perf_counter()
                with ThreadPoolExecutor(n_clients) as pool:
                    list(pool.map(send, contents))
                print(f"| {n_clients} | {count} | {count / (time.perf_counter() - began_s):.1f} |", flush=True)
    except httpx.HTTPError as error:
        print(f"{error!r}\n" + (folder / "server.log").read_text()[-3000:])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/nightscribe-gpu"))
    parser.add_argument("--files", type=int, default=600)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--only", default="flow,server")
    parser.add_argument("--within-s", type=float, default=120.0, help="of each run")
    parser.add_argument("--more", default="", help="further options of the runs")
    wish = parser.parse_args()
    if "flow" in wish.only:
        print(f"\n{usable_cores()} cores\n")
        print("| GPU workers | options | files | hours | command s | flow s | GPU at work s | busy % "
              "| times real time | workers' seconds |\n" + "|---" * 10 + "|")  # fmt: skip
        for workers in wish.workers.split(","):
            flow(wish.folder, wish.files, int(workers), wish.more.split(), wish.within_s)
    if "server" in wish.only:
        server(wish.folder)


if __name__ == "__main__":
    main()
