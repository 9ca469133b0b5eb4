"""Nightly and backfill share the GPU: one waits for the other, and a dead one does not hold it for ever."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deployments.site import ROOT, SIMPLE_FORM, Site, landed, process_worker, wait_until

ZOMBIES = "nightscribe crash zombie runs"
NEVER_BEGAN = "nightscribe crash runs that never began"
NOT_CANCELLED = "nightscribe crash runs that nobody cancels"


@pytest.fixture(scope="module")
def impatient_automations(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Those that end dead runs as they are shipped, with 10 s instead of 540 and 600; what was said of them."""
    shipped = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())["automations"]
    hurried = [automation for automation in shipped if automation["name"] in (ZOMBIES, NEVER_BEGAN, NOT_CANCELLED)]
    assert [automation["trigger"]["within"] for automation in hurried] == [540, 600, 600]
    for automation in hurried:
        automation["trigger"]["within"] = 10
    file = tmp_path_factory.mktemp("automations") / "automations.yaml"
    file.write_text(yaml.safe_dump({"automations": hurried}))
    yield site.deploy("--automations-only", "--automations", str(file))
    site.deploy("--automations-only")


@pytest.mark.postgres
@pytest.mark.usefixtures("impatient_automations")
def test_runs_that_nobody_begins_or_cancels_are_ended(site: Site, tmp_path: Path) -> None:
    """What a worker leaves that is stopped while it starts a run, or before it ends one. Here none is there at all."""
    expected = {}
    for state, ending, said in (
        ("CANCELLING", "CANCELLED", "nobody ended it within 600 s"),
        ("PENDING", "CRASHED", "it was not begun within 600 s"),
    ):
        run = site.start_run("backfill/backfill", **SIMPLE_FORM, dest=f"{tmp_path}/never")
        # Without a process the server would cancel it by itself.
        site.api("PATCH", f"/flow_runs/{run}", json={"infrastructure_pid": "another-host:4711"})
        answer = {"state": {"type": state, "name": state.capitalize()}, "force": True}
        assert site.api("POST", f"/flow_runs/{run}/set_state", json=answer)["status"] == "ACCEPT"
        expected[run] = (ending, said)
    for run, told in expected.items():
        ended = site.final_state(run, timeout_s=60)
        assert (ended["type"], ended["message"]) == told


@pytest.mark.postgres
def test_a_run_that_died_with_its_worker_frees_the_gpu(
    site: Site, inbox: Path, tmp_path: Path, impatient_automations: str
) -> None:
    assert f"{ZOMBIES}: updated" in impatient_automations
    plenty = tmp_path / "plenty"
    plenty.mkdir()
    for number in range(300):  # more than is done before the end comes
        shutil.copyfile(inbox / "en_000.flac", plenty / f"{number:03d}.flac")
    with process_worker(site, tmp_path / "first.log") as worker:
        held = site.start_run("backfill/backfill", **SIMPLE_FORM, source=str(plenty), dest=f"{tmp_path}/held")
        wait_until(lambda: heartbeats(site, held) > 0, 40)
        waiting = site.start_run("transcribe-new-audio/nightly", settle_seconds=0, dest=f"{tmp_path}/tables")
        worker.kill()
        worker.wait()
        os.kill(int(site.api("GET", f"/flow_runs/{held}")["infrastructure_pid"].rpartition(":")[-1]), signal.SIGKILL)
    assert site.state(held)["type"] == "RUNNING"
    with process_worker(site, tmp_path / "second.log"):
        seen = set()

        def crashed() -> bool:
            seen.add((site.state(held)["type"], site.state(waiting)["type"]))
            return bool(site.state(held)["type"] == "CRASHED")

        wait_until(crashed, 120)
        assert seen & {("RUNNING", "PENDING"), ("RUNNING", "RUNNING")} == set(), "two runs on one GPU"
        assert site.state(held)["message"] == "no sign of life for 540 s"
        # On a busy machine the run that waited may take longer than 10 s to begin, or from one event to the next.
        site.deploy("--automations-only")
        assert site.final_state(waiting)["type"] == "COMPLETED"
    assert len(landed(tmp_path / "tables")) == 3


def heartbeats(site: Site, flow_run_id: str) -> int:
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{flow_run_id}"]},
    }
    return len(site.api("POST", "/events/filter", json={"filter": wanted})["events"])
