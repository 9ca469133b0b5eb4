"""A crew whose work takes modelled time: the clock jumps from one answer to the next, and nothing is decoded or sent.

`tasks.night.Night` is the real one. Three things are modelled: workers (cores and GPUs), the flow's process, which runs
one thread of Python at a time, and the night's own thread, which waits for what it calls itself.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from stt_engine.types import AudioInfo, Chunk, ChunkTranscript
from tasks.night_terms import FileFinished
from tasks.orders import LandOrder, SplitOrder, TranscribedChunks, TranscribeOrder
from tasks.spool import READERS
from tasks.types import LandedPart, SplitFile, SpooledChunk

PCM_BYTES_PER_S = 32_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Durations and sizes; every field is an option of `scale_sim.py`, and says where its default is from."""

    file_s: float = field(default=360.0, metadata={"help": "length of a recording (assumed)"})
    file_bytes: int = field(default=4_000_000, metadata={"help": "of that in the store (assumed: FLAC, 16 kHz, mono)"})
    chunk_s: float = field(default=25.0, metadata={"help": "speech in a window of 30 s (assumed)"})
    window_s: float = field(
        default=0.0094,
        metadata={"help": "a window's time of a GPU that two workers share (computed from 84%% of 16.2 s; that of one "
                          "worker: measured, 0.0075 to 0.0078; RESULTS-gpu.md)"},
    )  # fmt: skip
    splits_rtfx: float = field(
        default=700.0,
        metadata={
            "help": "decoding and VAD on a core (measured: 750 to 810, scale_inputs; 620 to 700 in RESULTS-gpu.md)"
        },
    )
    task_run_s: float = field(
        default=0.012,
        metadata={
            "help": "a task run in the flow's process (measured: 0.006 to 0.009, with Dask 0.009 to 0.013, growth)"
        },
    )
    finish_file_s: float = field(
        default=0.001, metadata={"help": "a file's answers in the night's thread (measured: scale_inputs)"}
    )
    log_file_s: float = field(
        default=0.0007, metadata={"help": "a file's log line in the flow's process (measured: scale_inputs)"}
    )
    land_file_s: float = field(default=0.0008, metadata={"help": "landing, for each file (measured: scale_inputs)"})
    server_task_run_s: float = field(
        default=0.044, metadata={"help": "a task run in Prefect's server (measured on SQLite: 0.021 to 0.044, growth)"}
    )
    server_file_s: float = field(
        default=0.0005, metadata={"help": "a file's log line in the server (measured on SQLite: scale_inputs)"}
    )
    host_window_s: float = field(
        default=0.005,
        metadata={"help": "a GPU worker's own part of a window, its device idle unless another works (computed from "
                          "61%% busy with one worker: RESULTS-gpu.md)"},
    )  # fmt: skip
    read_window_s: float = field(
        default=0.0003,
        metadata={"help": "a window from the spool to floats (measured beside a GPU: below 0.00035, RESULTS-gpu.md; on "
                          "two shared cores 0.0017, scale_inputs)"},
    )  # fmt: skip
    spool_wait_s: float = field(
        default=0.0, metadata={"help": f"an answer of the spool, {READERS} reads at once (S3: assume 0.03)"}
    )
    discard_file_s: float = field(
        default=0.0001,
        metadata={"help": "a file's spool freed, the dispatcher's part of it (assumed; a store's requests are not)"},
    )

    @property
    def windows(self) -> int:
        """Of a file."""
        return max(1, int(self.file_s // self.chunk_s))


assert all("help" in entry.metadata for entry in fields(Model))


@dataclass
class Order:
    """A future that is done when the clock comes to it."""

    answer: Any
    attempts: int = 1
    callbacks: list[Callable[[Any], None]] = field(default_factory=list)

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self.callbacks.append(fn)

    def result(self) -> Any:
        return self.answer


class SimulatedCrew:
    """Also the night's queue of answers: to ask it for the next one moves the clock."""

    def __init__(self, model: Model, *, cores: int, gpus: int, workers_per_gpu: int = 1) -> None:
        self.model = model
        self.now_s = 0.0
        """Of the night's own thread."""
        self.flow_busy_s = self.gpu_busy_s = self.core_busy_s = self.idle_s = 0.0
        """`idle_s`: of the night's own thread."""
        self.finished_s: list[float] = []
        """When each file was finished, in order."""
        self.runs: Counter[str] = Counter()
        self.spooled = self.most_spooled = 0
        """Windows, from when a worker takes their file up until the file is finished."""
        self._flow_free_s = 0.0
        self._cores = [0.0] * cores
        self._gpu_workers = [(0.0, n % gpus) for n in range(gpus * workers_per_gpu)]
        self._device_free_s = [0.0] * gpus
        self._events: list[tuple[float, int, Order]] = []
        self._answers: list[Callable[[], None]] = []
        self._number = 0

    # -- the queue -----------------------------------------------------------------------------------------------

    def put(self, answer: Callable[[], None]) -> None:
        self._answers.append(answer)

    def get(self, timeout: float | None = None) -> Callable[[], None]:
        del timeout
        while not self._answers:
            done_s, _, order = heapq.heappop(self._events)
            self.idle_s += max(0.0, done_s - self.now_s)
            self.now_s = max(self.now_s, done_s)
            for callback in order.callbacks:
                callback(order)
        return self._answers.pop(0)

    def hear(self, finished: FileFinished) -> None:
        """The night's `on_file`: the dispatcher does this by itself, and nothing else meanwhile."""
        del finished
        self.spooled -= self.model.windows
        cpu_s = self.model.finish_file_s + self.model.log_file_s
        self.now_s = self._flow(cpu_s) + self.model.discard_file_s
        self.finished_s.append(self.now_s)

    # -- the crew ------------------------------------------------------------------------------------------------

    def split(self, order: SplitOrder) -> Order:
        model = self.model
        info = AudioInfo(model.file_s, 1, 16_000, "flac", "flac")
        found = tuple(
            SplitFile(
                file,
                info,
                "",
                model.windows * model.chunk_s,
                tuple(SpooledChunk(self._chunk(file.file_id, i), "/nowhere/x", 0) for i in range(model.windows)),
            )
            for file in order.files
        )
        took_s = len(order.files) * model.file_s / model.splits_rtfx
        began_s = max(heapq.heappop(self._cores), self._sent("split"))
        heapq.heappush(self._cores, began_s + took_s)
        self.core_busy_s += took_s
        self._done_at(began_s, None).add_done_callback(lambda _: self._spool(len(order.files) * model.windows))
        return self._done_at(began_s + took_s, found)

    def transcribe(self, order: TranscribeOrder) -> Order:
        model, count = self.model, len(order.chunks)
        free_s, device = heapq.heappop(self._gpu_workers)
        read_s = count * (model.read_window_s + model.spool_wait_s / min(READERS, count))
        hear_s, host_s = count * model.window_s, count * model.host_window_s
        began_s = max(max(free_s, self._sent("transcribe")) + read_s + host_s, self._device_free_s[device])
        self._device_free_s[device] = began_s + hear_s
        heapq.heappush(self._gpu_workers, (began_s + hear_s, device))
        self.gpu_busy_s += hear_s
        heard = tuple(ChunkTranscript(spooled.chunk, "en", 1.0, ()) for spooled in order.chunks)
        timings_s = {"read": read_s, "transcribe": host_s + hear_s}
        return self._done_at(began_s + hear_s, TranscribedChunks(heard, "x", "x", 0, timings_s))

    def land(self, order: LandOrder) -> Order:
        files = tuple(result.file for result in order.results)
        self._sent("land")
        return self._done_at(self._flow(len(files) * self.model.land_file_s), LandedPart("", "", files, True))

    def _spool(self, windows: int) -> None:
        self.spooled += windows
        self.most_spooled = max(self.most_spooled, self.spooled)

    def _chunk(self, file_id: str, index: int) -> Chunk:
        samples = int(self.model.chunk_s * 16_000)
        return Chunk(file_id, None, index, index * samples, (index + 1) * samples)

    def _sent(self, kind: str) -> float:
        """When an order leaves the flow's process."""
        self.runs[kind] += 1
        return self._flow(self.model.task_run_s)

    def _flow(self, cpu_s: float) -> float:
        """When the flow's process, whose threads wait for each other, is done with so much more."""
        self._flow_free_s = max(self._flow_free_s, self.now_s) + cpu_s
        self.flow_busy_s += cpu_s
        return self._flow_free_s

    def _done_at(self, done_s: float, answer: Any) -> Order:
        order = Order(answer)
        self._number += 1
        heapq.heappush(self._events, (done_s, self._number, order))
        return order
