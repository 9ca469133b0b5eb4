"""How a night's cost grows with the number of files: 10, 100, 1,000, 10,000, with Prefect and without.

    python benchmarks/growth.py [--counts 10,100,1000,10000] [--crews Prefect,plain,Dask] [--out benchmarks/growth.png]

Prints Markdown and draws a plot. The files are one sentence of 3 s under as many names; the backend is the fake one,
which computes next to nothing: what is left is listing, planning, decoding, landing and Prefect. The crew Dask is
Prefect with its workers below a Dask scheduler and two Dask workers, which are processes of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import HERE, family, turn
from stt_engine import models
from stt_engine.devices import usable_cores
from tests.deployments.site import free_port
from tests.prefect_server import running_server

SENTENCE = HERE.parent / "tests" / "data" / "samples" / "en_000.flac"


@dataclass(frozen=True, slots=True)
class Night:
    files: int
    crew: str
    plan_s: float
    night_s: float
    flow_cpu_s: float
    flow_peak_bytes: int
    workers_cpu_s: float
    server_cpu_s: float
    landed: int
    orders: int


def files_in(folder: Path, count: int) -> Path:
    source = folder / f"calls-{count}"
    source.mkdir()
    original = Path(shutil.copy(SENTENCE, folder / "sentence.flac"))
    for number in range(count):
        os.link(original, source / f"{number:05d}.flac")
    return source


def cpu_s(pids: Sequence[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


@contextmanager
def dask_machines(folder: Path) -> Iterator[str]:
    """Address of a scheduler with a Dask worker that has a model, and one that decodes on all cores."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port),
            "--no-dashboard"]  # fmt: skip
    with ExitStack() as parts, (folder / "dask.log").open("ab") as output:

        def start(command: list[str]) -> None:
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=HERE.parent)
            parts.callback(process.wait)
            parts.callback(process.terminate)

        start(dask)
        for kind, number in (("GPU", 1), ("CPU", usable_cores())):
            start([sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", str(number),
                   "--memory-limit", "0", "--no-dashboard", "--resources", f"{kind}={number}",
                   "--local-directory", str(folder)])  # fmt: skip
        yield address


def night(source: Path, count: int, crew: str, api_url: str, servers: Sequence[int], dask_address: str | None) -> Night:
    with tempfile.TemporaryDirectory(prefix="nightscribe-growth-") as dest:
        options: dict[str, Any] = {"backend": "fake", "plain": crew == "plain"}
        place = str(source)
        if crew == "Dask":
            place = source.as_uri()
            options |= {"task_runner": "dask", "dask_address": dask_address, "advanced": {"spool": f"file://{dest}"}}
        command = [
            sys.executable,
            str(HERE / "flow_loop.py"),
            str(models.resolve("fixture")),
            dest,
            json.dumps(options),
        ]
        before_s = cpu_s(servers)
        environment = {"PREFECT_API_URL": api_url, "PREFECT_LOGGING_LEVEL": "WARNING"}
        found = turn(command, place, environment).found
        return Night(count, crew, found["plan_s"], found["wall_s"] - found["plan_s"], found["flow_cpu_s"],
                     found["flow_peak_bytes"], found["worker_cpu_s"], cpu_s(servers) - before_s,
                     found["landed"], found["orders"])  # fmt: skip


def table(nights: Sequence[Night]) -> str:
    lines = [
        "| files | crew | orders | list and plan s | night s | flow CPU s | ms a file | flow peak MB | workers CPU s "
        "| Prefect server CPU s |",
        "|---" * 10 + "|",
    ]
    lines += [
        f"| {n.files:,} | {n.crew} | {n.orders} | {n.plan_s:.2f} | {n.night_s:.1f} | {n.flow_cpu_s:.1f} "
        f"| {1000 * n.flow_cpu_s / n.files:.2f} | {n.flow_peak_bytes / 1e6:.0f} | {n.workers_cpu_s:.1f} "
        f"| {n.server_cpu_s:.1f} |"
        for n in nights
    ]
    return "\n".join(lines)


def draw(nights: Sequence[Night], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (times, memory) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for crew, style in (("Prefect", "o-"), ("plain", "s--"), ("Dask", "^:")):
        own = [n for n in nights if n.crew == crew]
        counts = [n.files for n in own]
        times.loglog(counts, [1000 * n.flow_cpu_s / n.files for n in own], style, label=f"flow CPU, {crew}")
        times.loglog(counts, [1000 * n.night_s / n.files for n in own], style, alpha=0.4, label=f"night, {crew}")
        memory.semilogx(counts, [n.flow_peak_bytes / 1e6 for n in own], style, label=crew)
    times.axhline(3.0, color="grey", linewidth=0.8)
    times.set(xlabel="files", ylabel="ms a file", title="What a file costs")
    memory.set(xlabel="files", ylabel="MB", title="Peak memory of the flow's process", ylim=(0, None))
    for axes in (times, memory):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="10,100,1000,10000")
    parser.add_argument("--crews", default="Prefect,plain")
    parser.add_argument("--out", type=Path, default=HERE / "growth.png")
    wish = parser.parse_args()
    nights: list[Night] = []
    with tempfile.TemporaryDirectory(prefix="nightscribe-growth-") as home, running_server(Path(home)) as api_url:
        servers = [pid for pid in family(os.getpid()) if pid != os.getpid()]
        for count in map(int, wish.counts.split(",")):
            source = files_in(Path(home), count)
            for crew in wish.crews.split(","):
                with dask_machines(Path(home)) if crew == "Dask" else nullcontext() as address:
                    nights.append(night(source, count, crew, api_url, servers, address))
                print(nights[-1], file=sys.stderr, flush=True)
                assert nights[-1].landed == count
    print(f"\n{usable_cores()} cores, fake backend\n\n{table(nights)}")
    draw(nights, wish.out)


if __name__ == "__main__":
    main()
