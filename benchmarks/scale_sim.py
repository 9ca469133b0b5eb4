"""Where a run over many GPUs bends: the real planner, dispatcher and batcher, with modelled durations.

    python benchmarks/scale_sim.py [--hours 100000] [--gpus 1 8 64] [--cores-per-gpu 8] [--device-batch-windows 0]

Nothing is decoded and nothing is sent: a clock of the simulation's own jumps from one answer to the next. Measured
inputs, to be changed on the command line: how fast a GPU hears and a core splits, what a task run costs the flow.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stt_engine.split import SplitOptions
from stt_engine.types import AudioInfo, Chunk, ChunkTranscript, TranscribeOptions
from tasks.batches import form_batches
from tasks.night import Night
from tasks.night_options import WINDOWS_FOR_A_GPU
from tasks.night_terms import NightOptions
from tasks.orders import LandOrder, SplitOrder, TranscribedChunks, TranscribeOrder
from tasks.task_batches import BatchBounds
from tasks.types import AudioFile, LandedPart, NightPlan, SplitFile, SpooledChunk

CHUNK_S = 25.0
FILES_ALONE_UP_TO = 500


@dataclass(frozen=True)
class Model:
    gpus: int
    cores: int
    hears_rtfx: float
    """One GPU, windows of CHUNK_S."""
    splits_rtfx: float
    """One core."""
    file_s: float
    task_run_s: float
    """Of the flow's process, which runs one thread of Python at a time."""
    land_file_s: float
    """Of the flow's process, for each file of a part."""


@dataclass
class Order:
    answer: Any
    attempts: int = 1
    callbacks: list[Callable[[Any], None]] = field(default_factory=list)

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self.callbacks.append(fn)

    def result(self) -> Any:
        return self.answer


class SimulatedCrew:
    """Also the night's queue: to ask it for the next answer moves the clock."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.now_s = 0.0
        self.flow_free_s = 0.0
        self.flow_busy_s = 0.0
        self.gpu_busy_s = 0.0
        self.free = {"cpu": [0.0] * model.cores, "gpu": [0.0] * model.gpus}
        self.runs: Counter[str] = Counter()
        self.spooled = self.most_spooled = 0
        self._events: list[tuple[float, int, Order]] = []
        self._answers: list[Callable[[], None]] = []
        self._number = 0

    def put(self, answer: Callable[[], None]) -> None:
        self._answers.append(answer)

    def get(self, timeout: float | None = None) -> Callable[[], None]:
        del timeout
        while not self._answers:
            self.now_s, _, order = heapq.heappop(self._events)
            for callback in order.callbacks:
                callback(order)
        return self._answers.pop(0)

    def split(self, order: SplitOrder) -> Order:
        count = int(self.model.file_s // CHUNK_S)
        info = AudioInfo(self.model.file_s, 1, 16_000, "flac", "flac")
        found = tuple(
            SplitFile(
                file,
                info,
                "",
                count * CHUNK_S,
                tuple(
                    SpooledChunk(Chunk(file.file_id, None, i, i * 400_000, (i + 1) * 400_000), "/nowhere/x", 0)
                    for i in range(count)
                ),
            )
            for file in order.files
        )
        self.spooled += count * len(order.files)
        self.most_spooled = max(self.most_spooled, self.spooled)
        return self._send("split", "cpu", len(order.files) * self.model.file_s / self.model.splits_rtfx, found)

    def transcribe(self, order: TranscribeOrder) -> Order:
        took_s = len(order.chunks) * CHUNK_S / self.model.hears_rtfx
        self.gpu_busy_s += took_s
        self.spooled -= len(order.chunks)
        heard = tuple(ChunkTranscript(spooled.chunk, "en", 1.0, ()) for spooled in order.chunks)
        return self._send("transcribe", "gpu", took_s, TranscribedChunks(heard, "x", "x", 0, {"transcribe": took_s}))

    def land(self, order: LandOrder) -> Order:
        files = tuple(result.file for result in order.results)
        return self._send("land", None, len(files) * self.model.land_file_s, LandedPart("", "", files, True))

    def _send(self, kind: str, where: str | None, took_s: float, answer: Any) -> Order:
        self.runs[kind] += 1
        flow_s = self.model.task_run_s + (took_s if where is None else 0.0)
        self.flow_free_s = max(self.flow_free_s, self.now_s) + flow_s
        self.flow_busy_s += flow_s
        ends_s = self.flow_free_s
        if where is not None:
            ends_s = max(heapq.heappop(self.free[where]), ends_s) + took_s
            heapq.heappush(self.free[where], ends_s)
        order = Order(answer)
        self._number += 1
        heapq.heappush(self._events, (ends_s, self._number, order))
        return order


def simulate(model: Model, *, files: int, sample: int, windows: int, group_bytes: int) -> dict[str, float]:
    """A stretch of `sample` files out of a run of `files`, in groups of the size that the whole run has."""
    taken = min(files, sample)
    made = [
        AudioFile(f"s3://calls/{n:09d}.flac", f"{n:09d}.flac", f"{n:x}", 4_000_000, datetime(2026, 1, 1, tzinfo=UTC))
        for n in range(taken)
    ]
    batches = form_batches(
        [(file, 0) for file in made], options_hash="0", ingest_date=date(2026, 1, 1), files_per_batch=200
    )
    crew = SimulatedCrew(model)
    least = windows or WINDOWS_FOR_A_GPU
    options = NightOptions(
        split=SplitOptions(),
        transcribe=TranscribeOptions(language="en"),
        model="x",
        backend="x",
        spool_uri="/nowhere",
        cpu_workers=model.cores,
        gpu_workers=model.gpus,
        batches=BatchBounds(6.0, least, max(256, least)),
        group_bytes=group_bytes,
        files_alone_up_to=FILES_ALONE_UP_TO if taken == files else max(1, FILES_ALONE_UP_TO * taken // files),
    )
    night = Night(NightPlan("p", "r", batches, taken, 0, 0, 0), crew, options)
    night._answers = crew  # type: ignore[assignment]
    began_s = time.perf_counter()
    outcome = night.run()
    assert outcome.landed == taken
    heard_s = taken * model.file_s
    whole = files / taken
    return {
        "rtfx": heard_s / crew.now_s,
        "hours": whole * crew.now_s / 3600,
        "gpu busy": crew.gpu_busy_s / crew.now_s / model.gpus,
        "flow busy": crew.flow_busy_s / crew.now_s,
        "runs a s": crew.runs.total() / crew.now_s,
        "task runs": whole * crew.runs.total(),
        "spooled GB": crew.most_spooled * CHUNK_S * 32_000 / 1e9,
        "dispatcher s/file": (time.perf_counter() - began_s) / taken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[1_000, 100_000, 10_000_000])
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--cores-per-gpu", type=int, default=8)
    parser.add_argument("--file-s", type=float, default=360.0)
    parser.add_argument("--hears-rtfx", type=float, default=4_000.0)
    parser.add_argument("--splits-rtfx", type=float, default=700.0)
    parser.add_argument("--task-run-s", type=float, default=0.007)
    parser.add_argument("--land-file-s", type=float, default=0.001)
    parser.add_argument("--device-batch-windows", type=int, default=0)
    parser.add_argument("--group-bytes", type=int, default=256 * 2**20)
    parser.add_argument("--sample", type=int, default=2_000, help="files simulated for each GPU, 12,000 at least")
    chosen = parser.parse_args()
    print(
        "| hours of audio | GPUs | times real time | hours it takes | GPU busy | flow busy | task runs a s "
        "| task runs |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for hours in chosen.hours:
        for gpus in chosen.gpus:
            model = Model(
                gpus, gpus * chosen.cores_per_gpu, chosen.hears_rtfx, chosen.splits_rtfx,
                chosen.file_s, chosen.task_run_s, chosen.land_file_s,
            )  # fmt: skip
            files = int(hours * 3600 / chosen.file_s)
            found = simulate(
                model,
                files=files,
                sample=max(12_000, chosen.sample * gpus),
                windows=chosen.device_batch_windows,
                group_bytes=chosen.group_bytes,
            )
            print(
                f"| {hours:,.0f} | {gpus} | {found['rtfx']:,.0f} | {found['hours']:,.2f} | {found['gpu busy']:.0%} | "
                f"{found['flow busy']:.0%} | {found['runs a s']:.1f} | {found['task runs']:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
