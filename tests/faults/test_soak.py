"""Two thousand files through one run: no process grows, and Prefect has the end of every task run.

The long form only (`make faults`): some minutes. The figures are printed (pytest -rA shows them).
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections import Counter, defaultdict
from itertools import cycle, islice
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort

from tests.flows.conftest import CommandLine, asking, task_runs_of, workers_below
from tests.flows.tables import query
from tests.long_form import long
from tests.prefect_server import PrefectServer

N_FILES, FILES_PER_PART, FILES_ALONE_UP_TO = 2000, 50, 100
WARM_FILES, WINDOW_FILES = 200, 300
MOST_GROWTH = 1.05
OPTIONS = ("--model", "fixture", "--device", "cpu", "--cpu-workers", "1", "--timestamps", "word", "--json",
           "--files-per-part", str(FILES_PER_PART))  # fmt: skip


def resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@long
@pytest.mark.timeout(3000)
def test_two_thousand_files_leave_memory_flat(server: PrefectServer, samples: Path, tmp_path: Path) -> None:
    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    recordings = sorted(path for path in samples.glob("*_0??.flac"))
    for number, recording in enumerate(islice(cycle(recordings), N_FILES)):
        shutil.copyfile(recording, source / f"{number:04d}.flac")
    flow = CommandLine(server.url).start("run", source, dest, *OPTIONS)
    sizes: dict[str, list[tuple[int, int]]] = defaultdict(list)
    started_s = time.monotonic()
    while flow.poll() is None:
        landed = FILES_PER_PART * sum(1 for _ in dest.glob("transcripts/*/*.parquet"))
        for pid, kind in {flow.pid: "flow", **workers_below(flow.pid)}.items():
            if size := resident_bytes(pid):
                sizes[kind].append((landed, size))
        time.sleep(0.5)
    _, err = flow.communicate()
    assert flow.returncode == 0, err
    print(f"{N_FILES} files in {time.monotonic() - started_s:.0f} s")
    growth = {kind: _growth(found) for kind, found in sizes.items()}
    for kind, found in sizes.items():
        print(f"{kind}: {max(size for _, size in found) / 1e6:.0f} MB at most, {growth[kind]:.3f} times from file"
              f" {WARM_FILES} on")  # fmt: skip
    assert set(growth) == {"flow", "cpu", "gpu"}
    (counted,) = query("SELECT count(*) AS n, count(DISTINCT source_uri) AS files FROM {transcripts}", dest)
    assert counted == {"n": N_FILES, "files": N_FILES}
    with asking(server.url):
        runs = task_runs_of(newest_flow_run())
    by_step = Counter(run.name.split()[0] for run in runs)
    print(f"task runs {dict(by_step)}")
    assert {run.state.type.value for run in runs} == {"COMPLETED"}
    assert by_step["split"] < FILES_ALONE_UP_TO
    assert by_step["land"] == N_FILES // FILES_PER_PART
    for kind, ratio in growth.items():
        assert ratio < MOST_GROWTH, f"{kind} grew {ratio:.3f} times"


def _growth(sizes: list[tuple[int, int]]) -> float:
    early = [size for landed, size in sizes if WARM_FILES <= landed < WARM_FILES + WINDOW_FILES]
    late = [size for landed, size in sizes if landed >= N_FILES - WINDOW_FILES]
    return statistics.median(late) / statistics.median(early)


def newest_flow_run() -> UUID:
    with get_client(sync_client=True) as client:
        (found,) = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
    return found.id
