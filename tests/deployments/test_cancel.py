"""A run that a worker started, cancelled from the Prefect UI."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.deployments.site import SIMPLE_FORM, Site, landed, wait_until


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
