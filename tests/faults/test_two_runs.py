"""Two runs at once over the same source and destination: a nightly, and a backfill with and without --force."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.reader import reading
from tests.faults.runs import N_FILES, N_PARTS, Runs, parts, said
from tests.flows.tables import query
from tests.long_form import N_NIGHTS, long
from tests.prefect_server import PrefectServer
from tests.tasks.waiting import until

TODAY = ("--modified-since", str(date.today() - timedelta(days=1)))
"""What makes a run a backfill."""


def summary(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(0, N_NIGHTS, 4))
def test_a_nightly_and_a_backfill_at_once_share_no_file(
    seed: int, server: PrefectServer, source: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    dest = tmp_path / "tables"
    runs = Runs(server.url, source, tmp_path / "spool")
    with reading(dest) as readings:
        nightly = runs.start(dest)
        if seed:  # the second one comes when the first has got so far; the first seed lets them race
            until(
                lambda: parts(dest) >= random.Random(seed).randrange(N_PARTS) or nightly.poll() is not None, within_s=90
            )
        backfill = runs.start(dest, *TODAY)
        done = [summary(nightly), summary(backfill)]
    print(f"seed {seed}: nightly landed {done[0]['landed']}, backfill {done[1]['landed']}, {readings.count} readings")
    assert sum(one["landed"] for one in done) == N_FILES
    assert readings.faults == []
    assert said(dest) == texts
    again = json.loads(runs.whole(dest).out)
    assert (again["landed"], again["already_done"]) == (0, N_FILES)


@long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(0, N_NIGHTS, 4))
def test_a_forced_backfill_beside_a_nightly_leaves_one_current_row_a_file(
    seed: int, server: PrefectServer, source: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    """A file that the nightly holds is left to it; one that has landed is done again, in a part of its own."""
    dest = tmp_path / "tables"
    runs = Runs(server.url, source, tmp_path / "spool")
    earlier = json.loads(runs.whole(dest, "--limit", "8").out)["landed"]
    nightly = runs.start(dest)
    moment = parts(dest) + random.Random(seed).randrange(1, 3)
    until(lambda: parts(dest) >= moment or nightly.poll() is not None, within_s=90)
    nightly.send_signal(signal.SIGSTOP)  # the forced one plans and works while the nightly is in the middle of it
    try:
        forced = summary(runs.start(dest, *TODAY, "--force"))
    finally:
        nightly.send_signal(signal.SIGCONT)
    done = summary(nightly)
    print(f"seed {seed}: stopped after {moment} parts; nightly landed {done['landed']}, forced {forced['landed']}")
    assert earlier + done["landed"] == N_FILES
    assert (forced["landed"], forced["claimed_elsewhere"]) == (earlier, N_FILES - earlier)
    written = query("SELECT source_uri, batch_id, run_id, text FROM {transcripts}", dest)
    assert len(written) == N_FILES + forced["landed"]
    assert len({(row["source_uri"], row["run_id"]) for row in written}) == len(written), "a run landed a file twice"
    current = query(
        "SELECT source_uri, text FROM {transcripts}"
        " QUALIFY row_number() OVER (PARTITION BY source_uri ORDER BY transcribed_at DESC, batch_id DESC) = 1",
        dest,
    )
    assert {row["source_uri"].rpartition("/")[2]: row["text"] for row in current} == texts
