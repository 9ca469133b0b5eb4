"""What `scale_sim.py` takes as given, measured on this machine: decoding on a core, and a file in the flow's process.

    python -m benchmarks.scale_inputs [--files 1000] [--chunks 14] [--log-lines 5000] [--planned 300000]

Processor time, so that others on the machine disturb little. `growth.py` measures task runs, `gpu.py` the GPU.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from prefect import flow, get_run_logger

from benchmarks.growth import cpu_s
from benchmarks.processes import family
from stt_engine.split import SplitOptions, split_audio
from stt_engine.types import SAMPLE_RATE_HZ, AudioInfo, Chunk, ChunkAudio, ChunkTranscript, Segment, TranscribeOptions
from tasks.batches import form_batches
from tasks.files_in_hand import FileInHand, landed_row
from tasks.land import land_batch
from tasks.landings import Landings
from tasks.liveness import RunIdentity
from tasks.plan_log import PlanEntry, _to_json
from tasks.spool import read_chunks, write_chunks
from tasks.storage import open_store
from tasks.types import AudioFile, LandingBatch, NightPlan, RunStamp, SplitFile, SpooledChunk
from tests.prefect_server import running_server

SAMPLES = Path(__file__).resolve().parent.parent / "tests" / "data" / "samples"
TEXT = "how can i help you next week your invoice number is zero zero three"
SEGMENTS_A_CHUNK = 4
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def splitting(folder: Path, repeats: int) -> tuple[float, float]:
    """(seconds of audio, seconds of one core): decode, find speech, cut, spool on a disk."""
    audio_s = 0.0
    began_s = time.process_time()
    for path in sorted(SAMPLES.glob("??_long*.flac")) * repeats:
        splitter = split_audio(path, file_id="a", name=path.name, options=SplitOptions())
        write_chunks(str(folder), "a", splitter)
        audio_s += splitter.info.duration_s
    return audio_s, time.process_time() - began_s


def reading(folder: Path, windows: int) -> float:
    """Milliseconds for a window of 25 s, from a disk's cache to floats, as a GPU worker reads it."""
    samples = np.zeros(25 * SAMPLE_RATE_HZ, np.float32)
    chunks = (
        ChunkAudio(Chunk("b", None, n, n * len(samples), (n + 1) * len(samples)), samples) for n in range(windows)
    )
    spooled = write_chunks(str(folder), "b", chunks)
    began_s = time.process_time()
    assert sum(1 for _ in read_chunks(spooled)) == windows
    return 1000 * (time.process_time() - began_s) / windows


def answers(files: int, chunks: int) -> list[tuple[bytes, bytes]]:
    """As they come from the workers for each file: the pickle of its splitting, and of its texts."""
    made = []
    segments = tuple(
        Segment(TEXT, 6.0 * n, 6.0 * n + 5.0, None, -0.2, 0.01, 1.1, 0.0, (), ()) for n in range(SEGMENTS_A_CHUNK)
    )
    for number in range(files):
        file = AudioFile(f"s3://calls/{number:09d}.flac", f"{number:09d}.flac", f"{number:032x}", 4_000_000, NOW)
        cut = [Chunk(file.file_id, None, n, n * 400_000, (n + 1) * 400_000) for n in range(chunks)]
        info = AudioInfo(25.0 * chunks + 10, 1, 16_000, "flac", "flac")
        spooled = tuple(SpooledChunk(chunk, f"/spool/{file.file_id}.pcm", 0) for chunk in cut)
        split = SplitFile(file, info, "ab" * 32, 25.0 * chunks, spooled, {"fetch": 0.1, "decode": 0.1, "vad": 0.1})
        heard = tuple(ChunkTranscript(chunk, "en", 0.9, segments) for chunk in cut)
        made.append((pickle.dumps(split), pickle.dumps(heard)))
    return made


def in_the_flow(dest: str, files: int, chunks: int, files_per_part: int) -> dict[str, float]:
    """Milliseconds of the flow's process for a file, by what it does with it. Prefect, and its log, are left out."""
    given = answers(files, chunks)
    began_s = time.process_time()
    taken = [(pickle.loads(split), pickle.loads(heard)) for split, heard in given]
    unpickled_s = time.process_time()
    rows = []
    for split, heard in taken:
        found = FileInHand(split, 0)
        for transcript in heard:
            found.hear(transcript)
        rows.append(landed_row(found, backend="fake", model="fixture", options=TranscribeOptions(language="en")))
    assembled_s = time.process_time()
    store = open_store(dest)
    stamp = RunStamp("run", "fixture", "fake", "float32", "0" * 16, "0")
    for start in range(0, files, files_per_part):
        part = rows[start : start + files_per_part]
        batch = LandingBatch(f"{start:032x}", date(2026, 1, 1), "0" * 16, tuple(row.file for row in part))
        land_batch(store, batch, part, stamp)
    landed_s = time.process_time()
    return {
        "read the workers' answers": 1000 * (unpickled_s - began_s) / files,
        "assemble": 1000 * (assembled_s - unpickled_s) / files,
        f"land, {files_per_part} files a part": 1000 * (landed_s - assembled_s) / files,
    }


def planning(files: int) -> dict[str, float]:
    """Bytes for each new file: of the plan in DEST, and of the flow's process at its peak, when that is written."""
    before_bytes = peak_bytes()
    made = [
        AudioFile(f"s3://calls/2026/{n:09d}-call.flac", f"2026/{n:09d}-call.flac", f"{n:032x}", 4_000_000 + n,
                  NOW + timedelta(seconds=n))
        for n in range(files)
    ]  # fmt: skip
    batches = form_batches(
        [(file, 0) for file in made], options_hash="0" * 16, ingest_date=date(2026, 1, 1), files_per_batch=200
    )
    landings = Landings(NightPlan("1-x", "run", batches, files, 0, 0, 0))
    entry = PlanEntry("00000001-x", RunIdentity.here("run"), NOW, "0" * 16, batches)
    written = len(_to_json(entry))
    assert landings.settled_files == 0
    return {"the plan": written / files, "memory": (peak_bytes() - before_bytes) / files}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@flow(name="log-lines", log_prints=False)
def log_lines(count: int) -> float:
    """Milliseconds of this process for a line in a run's log, its way to the server included."""
    log = get_run_logger()
    time.sleep(2.0)
    began_s = time.process_time()
    for number in range(count):
        log.info("%09d-call.flac: 360.0 s of audio, 350.0 s of speech, language en, 56 segments", number)
        if number % 20 == 19:
            time.sleep(0.02)
    time.sleep(8.0)  # they are sent in batches, by a thread
    return 1000 * (time.process_time() - began_s) / count


def with_a_server(count: int) -> tuple[float, float]:
    """(milliseconds for a line in the flow's process, in the server); the second without what it takes idle."""
    with tempfile.TemporaryDirectory(prefix="nightscribe-inputs-") as home, running_server(Path(home)) as api_url:
        command = [sys.executable, "-m", "benchmarks.scale_inputs", "--log-lines-here"]
        spent_s = []
        for lines in (1, count):
            servers = [pid for pid in family(os.getpid()) if pid != os.getpid()]
            before_s, began_s = cpu_s(servers), time.monotonic()
            done = subprocess.run(
                [*command, str(lines)], env=os.environ | {"PREFECT_API_URL": api_url}, capture_output=True, check=True
            )
            spent_s.append((cpu_s(servers) - before_s, time.monotonic() - began_s))
        (idle_s, idle_wall_s), (busy_s, wall_s) = spent_s
        return float(done.stdout.split()[-1]), 1000 * (busy_s - idle_s * wall_s / idle_wall_s) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=14, help="of a file; 14 are a call of six minutes")
    parser.add_argument("--files-per-part", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=20, help="of the recordings that are split")
    parser.add_argument("--planned", type=int, default=300_000, help="files of a plan")
    parser.add_argument("--log-lines", type=int, default=0, help="also so many log lines, with a Prefect server")
    parser.add_argument("--log-lines-here", type=int, default=0, help=argparse.SUPPRESS)
    wish = parser.parse_args()
    if wish.log_lines_here:
        print(log_lines(wish.log_lines_here))
        return
    with tempfile.TemporaryDirectory(prefix="nightscribe-inputs-") as folder:
        splitting(Path(folder), 1)  # the voice activity model is read once
        audio_s, core_s = splitting(Path(folder), wish.repeats)
        print(f"split: {audio_s:,.0f} s of audio in {core_s:.1f} s of a core, {audio_s / core_s:,.0f} times real time")
        for what, size in planning(wish.planned).items():
            print(f"{what}: {size:,.0f} bytes a new file, of {wish.planned:,}")
        print(f"read a window from the spool: {reading(Path(folder), 256):.2f} ms")
        for what, ms in in_the_flow(f"{folder}/tables", wish.files, wish.chunks, wish.files_per_part).items():
            print(f"{what}: {ms:.2f} ms a file")
    if wish.log_lines:
        flow_ms, server_ms = with_a_server(wish.log_lines)
        print(f"log: {flow_ms:.2f} ms a file, and {server_ms:.2f} ms of the server")


if __name__ == "__main__":
    main()
