"""From the command to the first chunk: `nightscribe run` over five sentences, with a server of its own and beside one.

    python -m benchmarks.cold_start [--times 5]

Prints Markdown. The first command of a machine makes Prefect's database and is told apart. When a task began is what
Prefect's database says; the first chunk is on a worker when its task has begun and the model is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stt_engine.devices import usable_cores
from tests.prefect_server import running_server

ROOT = Path(__file__).resolve().parent.parent
SENTENCES = sorted((ROOT / "tests" / "data" / "samples").glob("en_00[0-4].flac"))


@dataclass(frozen=True, slots=True)
class Start:
    first_chunk_s: float
    """From the command's start, as are the others."""
    landed_s: float
    whole_s: float
    model_load_s: float
    said_s: float
    """What the command says that the run took."""


def start(source: Path, home: Path, api_url: str | None) -> Start:
    dest = Path(tempfile.mkdtemp(prefix="tables-", dir=home))
    environment = os.environ | {"PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    if api_url is not None:
        environment["PREFECT_API_URL"] = api_url
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", str(source), str(dest), "--json",
               "--model", "fixture"]  # fmt: skip
    began, began_s = datetime.now(UTC), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    whole_s = time.perf_counter() - began_s
    (record,) = (json.loads(path.read_text()) for path in (dest / "_runs").glob("*.json"))
    time.sleep(1.5)  # a lasting server writes task runs down every second
    return Start(
        first_chunk_s=_moment(home, "transcribe", "start_time", began),
        landed_s=_moment(home, "land", "end_time", began),
        whole_s=whole_s,
        model_load_s=record["counts"]["model_load_s"],
        said_s=json.loads(done.stdout.splitlines()[-1])["wall_seconds"],
    )


def _moment(home: Path, task: str, column: str, began: datetime) -> float:
    with sqlite3.connect(f"file:{home / 'prefect.db'}?mode=ro", uri=True) as database:
        (found,) = database.execute(
            f"SELECT min({column}) FROM task_run WHERE name LIKE ? AND start_time > ?",
            (f"{task} %", began.strftime("%Y-%m-%d %H:%M:%S.%f")),
        ).fetchone()
    return (datetime.fromisoformat(found).replace(tzinfo=UTC) - began).total_seconds()


def row(name: str, starts: Sequence[Start]) -> str:
    def middle(field: str) -> str:
        values = [getattr(s, field) for s in starts]
        return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"

    fields = ("first_chunk_s", "landed_s", "whole_s", "model_load_s", "said_s")
    return f"| {name} | {len(starts)} | " + " | ".join(middle(field) for field in fields) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightscribe-cold-") as folder:
        source, home = Path(folder) / "calls", Path(folder) / "own"
        source.mkdir()
        home.mkdir()
        for path in SENTENCES:
            shutil.copy(path, source)
        own = [start(source, home, None) for _ in range(wish.times + 1)]
        with running_server(Path(folder) / "lasting") as api_url:
            beside = [start(source, Path(folder) / "lasting", api_url) for _ in range(wish.times + 1)]
    print(f"{usable_cores()} cores; seconds from the command, median (range)\n")
    print("| Prefect server | commands | first chunk | first row landed | command ended | model load | run, as said |")
    print("|---|---|---|---|---|---|---|")
    print(row("its own, first command ever", own[:1]))
    print(row("its own, from the second on", own[1:]))
    print(row("a lasting one, from the second on", beside[1:]))


if __name__ == "__main__":
    main()
