"""What a DEST of a million rows costs the next run: the ledger read, and every listed file looked up in it.

    python benchmarks/million_rows.py [--rows 1000000] [--files-per-part 100 1000] [--new 1000] [--s3]

Prints Markdown. The rows are made up, through the schema and the writer of real parts; the listing is made up too,
since a store's listing is not what is measured. Each figure comes from a process of its own, so that its peak memory
is that of one plan. `--s3`: also behind Ceph's gateway on loopback (tests/s3).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tasks.liveness import RunIdentity  # noqa: E402
from tasks.plan import make_plan  # noqa: E402
from tasks.rows import to_parquet, transcripts_table  # noqa: E402
from tasks.storage import Store, open_store  # noqa: E402
from tasks.types import AudioFile, LandingBatch  # noqa: E402
from tests.tasks.builders import NOON, OPTIONS, landed, stamp  # noqa: E402

ROWS_A_DAY = 10_000
TEXT = "how can i help you next week 가격은 십 원입니다 " * 20
"""Of a call of some two minutes."""


def listed(number: int) -> AudioFile:
    key = f"2026/{number // ROWS_A_DAY:04d}/agent{number % 300:03d}/{number:09d}-call.wav"
    return AudioFile(f"s3://recordings/{key}", key, f"{number:032x}", 2_000_000 + number, NOON)


def listing(rows: int, new: int) -> Iterator[AudioFile]:
    yield from map(listed, range(rows + new))


def fill(store: Store, rows: int, files_per_part: int) -> int:
    """One part after the other; what differs between them is who they are about. Returns their bytes."""
    batch = LandingBatch("", date(2026, 1, 1), OPTIONS, tuple(map(listed, range(files_per_part))))
    model = transcripts_table(batch, [landed(file, TEXT) for file in batch.files], stamp(), transcribed_at=NOON)
    written_bytes = 0
    for start in range(0, rows, files_per_part):
        files = [listed(number) for number in range(start, min(rows, start + files_per_part))]
        part = f"{start:032x}"
        told = {
            "source_uri": [file.uri for file in files],
            "source_version": [file.version for file in files],
            "file_id": [file.file_id for file in files],
            "batch_id": [part] * len(files),
        }
        table = model.slice(0, len(files))
        for name, values in told.items():
            at = table.column_names.index(name)
            table = table.set_column(at, table.schema.field(at), pa.array(values, pa.string()))
        payload = to_parquet(table)
        day = date(2026, 1, 1) + timedelta(days=start // ROWS_A_DAY)
        store.create_exclusive(f"transcripts/ingest_date={day}/{part}.parquet", payload)
        written_bytes += len(payload)
    return written_bytes


def measure(dest: str, rows: int, new: int) -> None:
    """In a process of its own: one plan, as JSON."""
    began_s = time.perf_counter()
    for _ in listing(rows, new):
        pass
    listing_s = time.perf_counter() - began_s
    before_mb = peak_mb()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    plan = make_plan(
        open_store(dest),
        listing(rows, new),
        run=RunIdentity.here("benchmark"),
        options_hash=OPTIONS,
        now=datetime.now(UTC),
        claim=False,
    )
    plan_s = time.perf_counter() - began_s - listing_s
    cpu_s = time.process_time() - began_cpu_s - listing_s
    assert (plan.already_done, len(plan.files)) == (rows, new), (plan.already_done, len(plan.files))
    figures = {"plan_s": plan_s, "cpu_s": cpu_s, "listing_s": listing_s, "peak_mb": peak_mb(), "before_mb": before_mb}
    print(json.dumps(figures))


def peak_mb() -> float:
    """Of this program; getrusage would count what its parent had when it was started."""
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(peak) * 1024 / 1e6


def measured(dest: str, rows: int, new: int, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", dest, "--rows", str(rows), "--new", str(new)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=1_000, help="listed files that have no row")
    parser.add_argument("--files-per-part", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.rows, given.new)
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("pyarrow", "s3fs"))
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}; {given.rows:,} rows\n")
    print("| DEST | rows a part | parts | MB | s, best | s, worst | CPU s, best | peak MB | of that before the plan |")
    print("|---|---|---|---|---|---|---|---|---|")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="million-")))
        places: list[tuple[str, str, dict[str, str]]] = [("local disk", f"{scratch}/dest", {})]
        if given.s3:
            from tests.s3.gateway import running_gateway

            server = stack.enter_context(running_gateway(scratch / "gateway"))
            environment = {
                "AWS_ENDPOINT_URL": server.endpoint, "AWS_ACCESS_KEY_ID": server.key,
                "AWS_SECRET_ACCESS_KEY": server.secret, "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            }  # fmt: skip
            os.environ |= environment
            import s3fs

            s3fs.S3FileSystem().mkdir("million")
            places.append(("S3 on loopback", "s3://million/dest", environment))
        for name, place, environment in places:
            for files_per_part in given.files_per_part:
                dest = f"{place}-{files_per_part}"
                stored_bytes = fill(open_store(dest), given.rows, files_per_part)
                runs = [measured(dest, given.rows, given.new, environment) for _ in range(given.repeat)]
                seconds = sorted(run["plan_s"] for run in runs)
                peak, before = max(run["peak_mb"] for run in runs), max(run["before_mb"] for run in runs)
                parts = -(-given.rows // files_per_part)
                print(
                    f"| {name} | {files_per_part:,} | {parts:,} | {stored_bytes / 1e6:,.0f} | {seconds[0]:.1f} "
                    f"| {seconds[-1]:.1f} | {min(run['cpu_s'] for run in runs):.1f} | {peak:,.0f} | {before:,.0f} |",
                    flush=True,
                )
    print(f"\nThe listing was made in {runs[0]['listing_s']:.1f} s, which is not in these.")


if __name__ == "__main__":
    main()
