"""SIGKILL at random moments of the real flow: the flow, a GPU worker, a CPU worker, the Prefect server.

Thirty nights in the long form; every run kills the server, since tests/flows/test_workers.py kills the others. A line
for each is printed (pytest -rA shows it).
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.reader import reading
from tests.faults.runs import N_FILES, N_PARTS, Runs, parts, said
from tests.flows.conftest import workers_below
from tests.long_form import nights
from tests.prefect_server import PrefectServer
from tests.tasks.waiting import gone, until

VICTIMS = ("flow", "gpu", "cpu", "server")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", nights([VICTIMS.index("server")]))
def test_a_kill_at_a_random_moment_loses_and_doubles_nothing(
    seed: int, server: PrefectServer, source: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    chance = random.Random(seed)
    victim = VICTIMS[seed % len(VICTIMS)]
    # A moment of the run's own time, since this machine's differs from day to day.
    after_parts, then_s = chance.randrange(N_PARTS), chance.uniform(0.0, 0.4)
    dest, spool = tmp_path / "tables", tmp_path / "spool"
    runs = Runs(server.url, source, spool)
    with reading(dest) as readings:
        flow = runs.start(dest)
        try:
            until(lambda: bool(workers_below(flow.pid)), within_s=60)
            until(lambda: parts(dest) >= after_parts or flow.poll() is not None, within_s=90)
            time.sleep(then_s)  # the moment is what the seed chooses
            workers = workers_below(flow.pid)
            hit = kill(victim, flow.pid, workers, server)
            workers |= workers_below(flow.pid)
            if victim == "flow":
                until(lambda: all(gone(pid) for pid in workers), within_s=5)
            _, err = flow.communicate(timeout=150)
        finally:
            flow.kill()
            flow.wait()
        landed = parts(dest)
        status = flow.returncode
        again = runs.whole(dest)
    moment = f"after {after_parts} parts and {then_s:.2f} s"
    print(f"seed {seed}: {victim} {'killed' if hit else 'gone already'} {moment}; exit {status}, {landed} of {N_PARTS}"
          f" parts landed, {readings.count} readings")  # fmt: skip
    assert "Traceback" not in again.err, again.err
    assert again.status == 0, again.err
    if victim in ("gpu", "cpu"):
        assert status == 0, err
    assert readings.faults == []
    assert said(dest) == texts
    assert len(texts) == N_FILES
    assert not spool.exists() or list(spool.iterdir()) == []
    assert [path for path in dest.rglob("*") if path.is_file() and path.parent.name == "_tmp"] == []
    segments, words = ({part.name for part in dest.glob(f"{table}/*/*.parquet")} for table in ("segments", "words"))
    assert segments == words == {part.name for part in dest.glob("transcripts/*/*.parquet")}
    until(lambda: workers_of_anybody(spool) == [], within_s=5)


def kill(victim: str, flow: int, workers: dict[int, str], server: PrefectServer) -> bool:
    """Whether there was something to kill."""
    if victim == "server":
        server.kill()
        server.start()
        return True
    pids = [flow] if victim == "flow" else [pid for pid, kind in workers.items() if kind == victim]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
    return bool(pids)


def workers_of_anybody(spool: Path) -> list[int]:
    """Worker processes whose parent is gone: they have no business here."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            words = (entry / "cmdline").read_text()
        except (OSError, IndexError):
            continue
        if parent == "1" and ("gpu-worker" in words or "cpu-worker" in words) and str(spool) in words:
            found.append(int(entry.name))
    return found
