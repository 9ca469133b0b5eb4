"""How often a model is loaded under prefect-ray: Ray's default for tasks with a GPU, and with `max_calls=0`.

    pip install ray prefect-ray -c constraints.txt          # neither is a dependency of Nightscribe
    python -m benchmarks.ray_trial [--tasks 8] [--gpus 1] [--backend faster-whisper]

Prints Markdown. The model is the bundled fixture, on the CPU; the GPUs are only counted by Ray, so that it hands out
tasks as it would with real ones. Ray ends the process of a task with `num_gpus` after each call, to give the device's
memory back, and the next call loads the model again; `max_calls=0` lets it live.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options

from stt_engine import WhisperSTT
from stt_engine.models import FIXTURE
from tests.prefect_server import running_server

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = sorted((ROOT / "flows" / "demo_recordings").glob("*_0*.flac"))
LOADS: list[float] = []
"""Of this process: seconds that each load took."""


@dataclass(frozen=True)
class Heard:
    text: str
    pid: int
    loads: int
    """Of that process so far."""
    load_s: float
    """What this call waited for a load."""


@functools.cache
def model(backend: str) -> WhisperSTT:
    began_s = time.perf_counter()
    made = WhisperSTT(FIXTURE, device="cpu", backend=backend)
    LOADS.append(time.perf_counter() - began_s)
    return made


@task
def transcribe(path: str, backend: str) -> Heard:
    # By name, not by closure: this module is the program's __main__, which Ray pickles by value, cache and all.
    from benchmarks import ray_trial as here

    before = len(here.LOADS)
    text = here.model(backend).transcribe(path)["text"]
    return Heard(text, os.getpid(), len(here.LOADS), sum(here.LOADS[before:]))


def night(tasks: int, gpus: int, backend: str, **options: Any) -> tuple[list[Heard], float]:
    """`options`: Ray's, beside one GPU for each task."""
    runner = RayTaskRunner(
        init_kwargs={
            "num_gpus": gpus, "num_cpus": gpus + 1, "include_dashboard": False, "log_to_driver": False,
            "runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}},
        }
    )  # fmt: skip

    @flow(name="ray-trial", task_runner=runner, log_prints=False)
    def ray_trial() -> tuple[list[Heard], float]:
        began_s = time.perf_counter()
        with remote_options(num_gpus=1, **options):
            futures = [transcribe.submit(str(RECORDINGS[n % len(RECORDINGS)]), backend) for n in range(tasks)]
            return [future.result() for future in futures], time.perf_counter() - began_s

    return ray_trial()


def row(tasks: int, gpus: int, backend: str, **options: Any) -> str:
    heard, took_s = night(tasks, gpus, backend, **options)
    assert all(found.text for found in heard)
    loads = sum(found.load_s > 0 for found in heard)
    load_s = sum(found.load_s for found in heard)
    named = ", ".join(f"{name}={value}" for name, value in {"num_gpus": 1, **options}.items())
    return f"| {named} | {tasks} | {len({found.pid for found in heard})} | {loads} | {load_s:.1f} | {took_s:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--backend", default="faster-whisper")
    parser.add_argument("--options", type=json.loads, help="Ray's, as JSON: this one row, on the server that is there")
    wish = parser.parse_args()
    if wish.options is not None:
        print(row(wish.tasks, wish.gpus, wish.backend, **wish.options))
        return
    print(
        "| remote_options | tasks | processes | model loads | seconds of loading | s |\n" + "|---" * 6 + "|", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="nightscribe-ray-") as home, running_server(Path(home)) as api_url:
        for options in ({}, {"max_calls": 0}):  # each in a process of its own, which ends before the server does
            command = [sys.executable, "-m", "benchmarks.ray_trial", *sys.argv[1:], "--options", json.dumps(options)]
            subprocess.run(command, cwd=ROOT, env=os.environ | {"PREFECT_API_URL": api_url}, check=True)


if __name__ == "__main__":
    main()
