"""Nightly and backfill share the GPU: one waits for the other, and a dead one does not hold it for ever."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from tests.deployments.site import ROOT, SIMPLE_FORM, Site, landed, process_worker, wait_until

ZOMBIES = "nightscribe crash zombie runs"
NEVER_BEGAN = "nightscribe crash runs that never began"
NOT_CANCELLED = "nightscribe crash runs that nobody cancels"


@pytest.fixture
def impatient_automations(tmp_path: Path) -> Path:
    """Those that end dead runs as they are shipped, with 10 s instead of 540 and 600."""
    shipped = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())["automations"]
    hurried = [automation for automation in shipped if automation["name"] in (ZOMBIES, NEVER_BEGAN, NOT_CANCELLED)]
    assert [automation["trigger"]["within"] for automation in hurried] == [540, 600, 600]
    for automation in hurried:
        automation["trigger"]["within"] = 10
    file = tmp_path / "automations.yaml"
    file.write_text(yaml.safe_dump({"automations": hurried}))
    return file


@pytest.mark.postgres
def test_runs_that_nobody_begins_or_cancels_are_ended(site: Site, tmp_path: Path, impatient_automations: Path) -> None:
    """What a worker leaves that is stopped while it starts a run, or before it ends one. Here none is there at all."""
    site.deploy("--automations-only", "--automations", str(impatient_automations))
    try:
        for state, ending, said in (
            ("CANCELLING", "CANCELLED", "nobody ended it within 600 s"),
            ("PENDING", "CRASHED", "it was not begun within 600 s"),
        ):
            run = site.start_run("backfill/backfill", **SIMPLE_FORM, dest=f"{tmp_path}/never")
            # Without a process the server would cancel it by itself.
            site.api("PATCH", f"/flow_runs/{run}", json={"infrastructure_pid": "another-host:4711"})
            answer = {"state": {"type": state, "name": state.capitalize()}, "force": True}
            assert site.api("POST", f"/flow_runs/{run}/set_state", json=answer)["status"] == "ACCEPT"
            ended = site.final_state(run, timeout_s=60)
            assert (ended["type"], ended["message"]) == (ending, said)
    finally:
        site.deploy("--automations-only")


@pytest.mark.postgres
def test_a_run_that_died_with_its_worker_frees_the_gpu(
    site: Site, inbox: Path, tmp_path: Path, impatient_automations: Path
) -> None:
    said = site.deploy("--automations-only", "--automations", str(impatient_automations))
    assert f"{ZOMBIES}: updated" in said
    plenty = tmp_path / "plenty"
    plenty.mkdir()
    for number in range(300):  # more than is done before the end comes
        shutil.copyfile(inbox / "en_000.flac", plenty / f"{number:03d}.flac")
    try:
        with process_worker(site, tmp_path / "first.log") as worker:
            held = site.start_run("backfill/backfill", **SIMPLE_FORM, source=str(plenty), dest=f"{tmp_path}/held")
            wait_until(lambda: heartbeats(site, held) > 0, 40)
            waiting = site.start_run("transcribe-new-audio/nightly", settle_seconds=0, dest=f"{tmp_path}/tables")
            worker.kill()
            worker.wait()
            os.kill(
                int(site.api("GET", f"/flow_runs/{held}")["infrastructure_pid"].rpartition(":")[-1]), signal.SIGKILL
            )
        assert site.state(held)["type"] == "RUNNING"
        with process_worker(site, tmp_path / "second.log"):
            seen = set()

            def crashed() -> bool:
                seen.add((site.state(held)["type"], site.state(waiting)["type"]))
                return bool(site.state(held)["type"] == "CRASHED")

            wait_until(crashed, 120)
            assert seen & {("RUNNING", "PENDING"), ("RUNNING", "RUNNING")} == set(), "two runs on one GPU"
            assert site.state(held)["message"] == "no sign of life for 540 s"
            assert site.final_state(waiting)["type"] == "COMPLETED"
        assert len(landed(tmp_path / "tables")) == 3
    finally:
        site.deploy("--automations-only")


@pytest.mark.usefixtures("worker")
def test_a_run_cancelled_in_the_ui_leaves_its_parts_and_its_record(site: Site, inbox: Path, tmp_path: Path) -> None:
    plenty, dest = tmp_path / "plenty", tmp_path / "tables"
    plenty.mkdir()
    for number in range(80):  # more than is done before the end comes
        shutil.copyfile(inbox / "en_000.flac", plenty / f"{number:03d}.flac")
    options = {"source": str(plenty), "dest": str(dest), "advanced": {"files_per_part": 8}}
    run = site.start_run("backfill/backfill", **SIMPLE_FORM | options)
    wait_until(lambda: any(dest.glob("transcripts/*/*.parquet")), 60)
    site.api("POST", f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert site.final_state(run)["type"] == "CANCELLED"
    wait_until(lambda: any(dest.glob("_runs/*.json")), 10)
    (record,) = (json.loads(path.read_text()) for path in dest.glob("_runs/*.json"))
    assert 0 < len(landed(dest)) == record["counts"]["landed"] < 80
    assert record["counts"]["cancelled"] is True
    assert record["counts"]["not_started"] == 80 - record["counts"]["landed"]
    assert any(dest.glob("_reports/*.html"))
    again = site.start_run("backfill/backfill", **SIMPLE_FORM | options)
    assert site.final_state(again)["type"] == "COMPLETED"
    assert len(landed(dest)) == len({name for name, _ in landed(dest)}) == 80


def heartbeats(site: Site, flow_run_id: str) -> int:
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{flow_run_id}"]},
    }
    return len(site.api("POST", "/events/filter", json={"filter": wanted})["events"])
