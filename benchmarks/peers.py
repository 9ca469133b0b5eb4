"""Nightscribe beside what a user would pick instead: same files, same model, one run, taking turns.

    python benchmarks/peers.py [--corpora calls,talks] [--rounds 3] [--only nightscribe,faster-whisper]

Prints Markdown. Every contestant is a process of its own, started anew for every turn; its clock runs from the loaded
model to the last text (for Nightscribe: to the last landed row). Memory is the sum of proportional set sizes of all
processes of a contestant; the Prefect server is reported beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import jiwer

from benchmarks.corpora import CORPORA, Recording, made
from stt_engine import models
from stt_engine.devices import usable_cores
from tests.prefect_server import running_server

HERE = Path(__file__).resolve().parent
FLOWS: dict[str, dict[str, Any]] = {
    "nightscribe": {},
    "nightscribe --window fit": {"advanced": {"window": "fit"}},
}
PEERS = ("faster-whisper", "faster-whisper-batched", "transformers", "openai-whisper")


@dataclass(frozen=True, slots=True)
class Turn:
    contestant: str
    wall_s: float
    cpu_s: float
    first_s: float
    peak_bytes: int
    english_wer: float
    korean_cer: float
    stages_s: dict[str, float] = field(default_factory=dict)


@contextmanager
def watched(process: subprocess.Popen[str]) -> Iterator[list[int]]:
    """The memory of a process and all its descendants, every quarter of a second; the list's maximum is the peak."""
    sizes, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.25):
            sizes.append(sum(proportional_bytes(pid) for pid in family(process.pid)))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield sizes
    finally:
        over.set()
        watcher.join()


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        others = [
            child
            for task in Path(f"/proc/{pid}/task").iterdir()
            if task.name != str(pid)
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return [pid]
    return [pid, *(member for child in [*children, *others] for member in family(int(child)))]


def proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def turn(command: Sequence[str], told: object, environment: dict[str, str]) -> tuple[dict[str, Any], int]:
    process = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | environment | {"PYTHONPATH": str(HERE.parent)},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    with watched(process) as sizes:
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
        while (line := process.stdout.readline()) and line.strip() != "loaded":
            pass
        process.stdin.write("go\n")
        process.stdin.close()
        lines = process.stdout.read().splitlines()
        status = process.wait()
    if status != 0:
        raise SystemExit(f"{command}: exit status {status}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found, max(sizes)


def peer(name: str, model: Path, files: Sequence[Recording]) -> Turn:
    command = [str(HERE / "peer_loop.py"), name, str(model), str(usable_cores())]
    found, peak_bytes = turn(command, [(str(file.path), file.language) for file in files], {})
    texts = {file.path.name: text for file, text in zip(files, found["texts"], strict=True)}
    return Turn(name, found["wall_s"], found["cpu_s"], found["first_s"], peak_bytes, *error_rates(files, texts))


def nightscribe(name: str, model: Path, files: Sequence[Recording], api_url: str) -> Turn:
    with tempfile.TemporaryDirectory(prefix="nightscribe-bench-") as dest:
        command = [str(HERE / "flow_loop.py"), str(model), dest, json.dumps(FLOWS[name])]
        environment = {"PREFECT_API_URL": api_url, "PREFECT_LOGGING_LEVEL": "WARNING"}
        found, peak_bytes = turn(command, str(files[0].path.parent), environment)
        assert found["landed"] == len(files), found
        rows = duckdb.sql(
            f"SELECT parse_filename(source_uri), text FROM '{dest}/transcripts/*/*.parquet' WHERE status = 'landed'"
        ).fetchall()
    cpu_s = found["flow_cpu_s"] + found["worker_cpu_s"]
    return Turn(name, found["wall_s"], cpu_s, found["first_s"], peak_bytes, *error_rates(files, dict(rows)),
                found["stages_s"])  # fmt: skip


def error_rates(files: Sequence[Recording], texts: dict[str, str]) -> tuple[float, float]:
    english = [(f.text, " ".join(texts[f.path.name].split())) for f in files if f.language == "en"]
    korean = [(f.text.replace(" ", ""), "".join(texts[f.path.name].split())) for f in files if f.language == "ko"]
    wer = jiwer.wer([t for t, _ in english], [s for _, s in english]) if english else 0.0
    cer = jiwer.cer([t for t, _ in korean], [s for _, s in korean]) if korean else 0.0
    return float(wer), float(cer)


def table(corpus: str, files: Sequence[Recording], turns: Sequence[Turn]) -> str:
    audio_s = sum(file.duration_s for file in files)
    names = list(dict.fromkeys(t.contestant for t in turns))
    walls = {name: [t.wall_s for t in turns if t.contestant == name] for name in names}
    rivals = [name for name in names if name in PEERS] or names
    best = min(rivals, key=lambda name: statistics.median(walls[name]))
    lines = [
        f"### {corpus}: {len(files)} files, {audio_s / 60:.0f} min",
        "",
        "| | wall s (range) | times best peer (range) | RTFx | CPU s | first s | peak MB | WER en | CER ko |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        own = [t for t in turns if t.contestant == name]
        middle = statistics.median(walls[name])
        gains = [rival / mine for rival, mine in zip(walls[best], walls[name], strict=True)]
        lines.append(
            f"| {name} | {middle:.1f} ({min(walls[name]):.1f} to {max(walls[name]):.1f})"
            f" | {statistics.median(gains):.2f} ({min(gains):.2f} to {max(gains):.2f})"
            f" | {audio_s / middle:.0f} | {statistics.median(t.cpu_s for t in own):.1f}"
            f" | {statistics.median(t.first_s for t in own):.1f} | {max(t.peak_bytes for t in own) / 1e6:.0f}"
            f" | {own[-1].english_wer:.2%} | {own[-1].korean_cer:.2%} |"
        )
    for name in names:
        if stages := [t.stages_s for t in turns if t.contestant == name][-1]:
            spent = ", ".join(f"{stage} {wall_s:.1f}" for stage, wall_s in stages.items())
            lines.append(f"\nSeconds of {name} by stage, summed over its workers: {spent}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", default=",".join(CORPORA))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join([*FLOWS, *PEERS]))
    parser.add_argument("--model", default="fixture")
    parser.add_argument("--folder", default=str(Path(tempfile.gettempdir()) / "nightscribe-corpora"))
    wish = parser.parse_args()
    model = Path(models.resolve(wish.model))
    packages = ("nightscribe", "faster-whisper", "ctranslate2", "transformers", "torch", "openai-whisper", "prefect")
    print(f"{platform.processor() or platform.machine()}, {usable_cores()} cores, Python {platform.python_version()}; "
          + ", ".join(f"{name} {version(name)}" for name in packages) + f"; model {wish.model}\n")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="nightscribe-bench-server-") as home, running_server(Path(home)) as api_url:
        for corpus in wish.corpora.split(","):
            files = made(corpus, Path(wish.folder))
            turns = []
            for number in range(wish.rounds):
                for name in wish.only.split(","):
                    done = nightscribe(name, model, files, api_url) if name in FLOWS else peer(name, model, files)
                    print(f"{corpus} {number}: {name} {done.wall_s:.1f} s", file=sys.stderr, flush=True)
                    turns.append(done)
            print(table(corpus, files, turns), flush=True)


if __name__ == "__main__":
    main()
