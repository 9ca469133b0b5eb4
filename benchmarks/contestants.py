"""Who runs in the side-by-side benchmark, and one turn of each: `turn_of(name, ...)`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import jiwer

from benchmarks.corpora import Recording
from benchmarks.processes import HERE, turn
from stt_engine.devices import usable_cores

FLOWS: Mapping[str, Mapping[str, Any]] = {
    "nightscribe": {},
    "nightscribe --window fit": {"advanced": {"window": "fit"}},
    "nightscribe without Prefect": {"plain": True},
    "nightscribe with the null model": {"backend": "fake"},
}
"""Options of `flow_loop.py`."""
PEERS = ("faster-whisper", "faster-whisper-batched", "transformers", "openai-whisper", "whisper.cpp", "whisperx")
APART = ("whisper.cpp", "whisperx")
"""Peers whose dependencies are not Nightscribe's: they run in an environment of their own."""


@dataclass(frozen=True, slots=True)
class Turn:
    contestant: str
    wall_s: float
    cpu_s: float
    first_s: float
    command_s: float
    peak_bytes: int
    """Of all its processes at one moment."""
    model_peak_bytes: int
    """Of the largest process that holds the model."""
    english_wer: float
    korean_cer: float
    stages_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """What every turn needs to know."""

    model: Path
    """In Hugging Face's format, its CTranslate2 form in `ct2/`."""
    ggml: Path
    """The same in whisper.cpp's format."""
    api_url: str
    peers_python: Path


def turn_of(name: str, files: Sequence[Recording], place: Place) -> Turn:
    """`files` are all that their folder holds."""
    return _nightscribe(name, files, place) if name in FLOWS else _peer(name, files, place)


def _peer(name: str, files: Sequence[Recording], place: Place) -> Turn:
    python = place.peers_python if name in APART else Path(sys.executable)
    model = place.ggml if name == "whisper.cpp" else place.model
    command = [str(python), str(HERE / "peer_loop.py"), name, str(model), str(usable_cores())]
    told = turn(command, [(str(file.path), file.language) for file in files], {})
    texts = {file.path.name: text for file, text in zip(files, told.found["texts"], strict=True)}
    wer, cer = _error_rates(files, texts)
    return Turn(name, told.found["wall_s"], told.found["cpu_s"], told.found["first_s"], told.command_s,
                told.peaks.together_bytes, told.peaks.by_pid_bytes[told.pid], wer, cer)  # fmt: skip


def _nightscribe(name: str, files: Sequence[Recording], place: Place) -> Turn:
    environment = {"PREFECT_API_URL": place.api_url, "PREFECT_LOGGING_LEVEL": "WARNING"}
    source = str(files[0].path.parent)
    with tempfile.TemporaryDirectory(prefix="nightscribe-bench-") as dest:
        command = [sys.executable, str(HERE / "flow_loop.py"), str(place.model), dest, json.dumps(FLOWS[name])]
        told = turn(command, source, environment)
        assert told.found["landed"] == len(files), told.found
        rows = duckdb.sql(
            f"SELECT parse_filename(source_uri), text FROM '{dest}/transcripts/*/*.parquet' WHERE status = 'landed'"
        ).fetchall()
    with tempfile.TemporaryDirectory(prefix="nightscribe-bench-") as dest:
        command_s = _command(name, source, dest, place, environment)
    found = told.found
    wer, cer = _error_rates(files, dict(rows))
    return Turn(name, found["wall_s"], found["flow_cpu_s"] + found["worker_cpu_s"], found["first_s"], command_s,
                told.peaks.together_bytes, max(told.peaks.by_pid_bytes[pid] for pid in found["gpu_pids"]),
                wer, cer, found["stages_s"])  # fmt: skip


def _command(name: str, source: str, dest: str, place: Place, environment: Mapping[str, str]) -> float:
    """Wall seconds of `nightscribe run` as a user calls it; nan for what a user cannot call."""
    options = FLOWS[name]
    if options.get("plain"):
        return float("nan")
    said = [sys.executable, "-c", "from flows.cli import main; main()", "run", source, dest, "--device", "cpu",
            "--model", str(place.model), "--backend", options.get("backend", "auto"),
            "--window", options.get("advanced", {}).get("window", "full")]  # fmt: skip
    began_s = time.perf_counter()
    done = subprocess.run(said, cwd=HERE.parent, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(said)}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return time.perf_counter() - began_s


def _error_rates(files: Sequence[Recording], texts: Mapping[str, str]) -> tuple[float, float]:
    english = [(f.text, " ".join(texts[f.path.name].split())) for f in files if f.language == "en"]
    korean = [(f.text.replace(" ", ""), "".join(texts[f.path.name].split())) for f in files if f.language == "ko"]
    wer = jiwer.wer([t for t, _ in english], [s for _, s in english]) if english else 0.0
    cer = jiwer.cer([t for t, _ in korean], [s for _, s in korean]) if korean else 0.0
    return float(wer), float(cer)
