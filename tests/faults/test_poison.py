"""Files that do harm to the worker that touches them, in the real flow: only they fail, whatever they do.

The harm is done by `tests/faults/poison/sitecustomize.py`, in the workers of a run alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.run_record import Failure, failures
from tasks.storage import open_store
from tests.flows.conftest import ROOT, CommandLine, Said
from tests.flows.tables import rows
from tests.long_form import nights

HOOK = Path(__file__).parent / "poison"
HARMLESS = tuple(f"ok_{number:03d}.flac" for number in range(9))
LEAST_MEMORY_BYTES = 600 << 20
"""What the poisoned runs give a CPU worker; one at work holds a quarter of it."""


@dataclass(frozen=True)
class Poisoned:
    """What a run came to, and what its workers wrote down."""

    said: Said
    rows: dict[str, dict[str, Any]]
    left: dict[str, Failure]
    journal: list[dict[str, Any]]

    def tries(self, name: str) -> int:
        """How often a CPU worker began to decode it."""
        return sum(line.get("split") == name for line in self.journal)

    def orders_with(self, name: str) -> list[list[str]]:
        """The files of each chunk, of every order that had one of this file's, in the order of time."""
        return [[key for key, _ in line["chunks"]] for line in self.journal if name in line.get("order", ())]


Run = Callable[..., Poisoned]


@pytest.fixture
def poisoned(prefect_url: str, samples: Path, tmp_path: Path) -> Iterator[Run]:
    """A run over the harmless files and others of these names; its options are `options`."""

    def run(*names: str, most_windows: int = 1000, options: tuple[str, ...] = ()) -> Poisoned:
        source, dest, journal = tmp_path / "calls", tmp_path / "tables", tmp_path / "journal"
        source.mkdir()
        for name in HARMLESS:
            shutil.copyfile(samples / name.replace("ok", "en"), source / name)
        for name in names:
            of_many_chunks = "@" in name
            shutil.copyfile(samples / ("en_long0.flac" if of_many_chunks else "en_009.flac"), source / name)
        said = CommandLine(prefect_url)(
            "run", source, dest, "--model", "fixture", "--device", "cpu", "--backend", "faster-whisper",
            "--cpu-workers", "2", "--retries", "1", "--retry-delay-s", "0", "--max-chunk-s", "5", "--max-gap-s", "1",
            "--cpu-worker-memory-bytes", str(LEAST_MEMORY_BYTES), "--json", *options,
            PYTHONPATH=f"{HOOK}:{ROOT}", POISON_JOURNAL=str(journal), POISON_WINDOWS=str(most_windows),
        )  # fmt: skip
        assert "Traceback" not in said.err, said.err
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        left = {Path(failure.uri).name: failure for failure in failures(open_store(str(dest))) if failure.retryable}
        return Poisoned(said, rows(dest), left, lines)

    return run


SPIN, EAT, CRASH = "cpu-spin.flac", "cpu-eat.flac", "cpu-segfault.flac"
GPU_CRASH, GPU_HANG = "gpu-segfault@1.flac", "gpu-hang.flac"
POISONS = (SPIN, EAT, CRASH, GPU_CRASH, GPU_HANG)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("night_number", nights([0], range(10)))
def test_a_night_of_poison_costs_the_poisonous_files_alone(poisoned: Run, night_number: int) -> None:
    """Two CPU workers and two that hold the model; the device has room for two windows, a batch has eight."""
    night = poisoned(
        *POISONS,
        most_windows=2,
        options=("--gpu-workers", "2", "--device-batch-windows", "8", "--split-deadline-s", "8",
                 "--transcribe-deadline-s", "6"),
    )  # fmt: skip
    counted = {name: night.said.json[name] for name in ("planned", "landed", "failed_terminal", "failed_retryable")}
    assert counted == {"planned": 14, "landed": 9, "failed_terminal": 3, "failed_retryable": 2}
    assert night.said.status == 3, "what hangs is left for the next run, and an alert fires"
    landed = {name: row for name, row in night.rows.items() if row["status"] == "landed"}
    assert set(landed) == set(HARMLESS)
    assert all(row["text"] for row in landed.values())

    failed = {name: row["error_type"] for name, row in night.rows.items() if row["status"] == "failed"}
    assert failed == {EAT: "MemoryLimitExceeded", CRASH: "PoisonousAudio", GPU_CRASH: "PoisonousAudio"}
    assert {name: failure.error_type for name, failure in night.left.items()} == {
        SPIN: "DeadlineExceeded",
        GPU_HANG: "DeadlineExceeded",
    }
    messages = {name: night.rows[name]["error_message"] for name in failed}
    assert "its limit is 600 MiB" in messages[EAT]
    assert "the decoder crashed over it" in messages[CRASH] and "SIGSEGV" in messages[CRASH]
    assert messages[GPU_CRASH].startswith(f"{GPU_CRASH}: the chunk at 4.5 s ended its worker")
    assert "its deadline of 8 s" in night.left[SPIN].message and SPIN in night.left[SPIN].message
    assert night.left[GPU_HANG].message.startswith(f"{GPU_HANG}: the chunk at 0.1 s was over its deadline")

    tries = {name: night.tries(name) for name in (*POISONS, *HARMLESS)}
    assert tries[SPIN] == tries[CRASH] == 2
    assert tries[EAT] <= 2, "once, unless a busy machine has its deadline come first"
    assert night.rows[CRASH]["attempts"] == 2
    crash, hang = ([len(keys) for keys in night.orders_with(name)] for name in (GPU_CRASH, GPU_HANG))
    print(
        f"night {night_number}: decoded {tries}; chunks in the orders with {GPU_CRASH} {crash}, with {GPU_HANG} {hang}"
    )

    sought = [len(keys) for keys in night.orders_with(GPU_CRASH) if set(keys) == {GPU_CRASH}]
    assert sought[-2:] == [1, 1], "the last word has the chunk alone, and again"
    assert len(sought) <= 10, "six chunks: two whole, then halves of each half"
    assert night.rows[GPU_CRASH]["attempts"] >= 5

    for pid in {line["pid"] for line in night.journal}:
        sizes = [line["device_batch"] for line in night.journal if line["pid"] == pid and "device_batch" in line]
        too_large = [size for size in sizes if size > 2]
        assert too_large == sorted(set(too_large), reverse=True) and len(too_large) <= 2, f"forgot what fits: {sizes}"
    assert any(line.get("device_batch", 0) > 2 for line in night.journal), "no batch was ever too large"
