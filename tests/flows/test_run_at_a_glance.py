"""What Prefect's UI and the page beside the tables say of a run, and that neither can cost it anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.run_record import read_records
from tasks.storage import open_store
from tests.flows.conftest import Night, advanced, logs_of

SAID = "how can i help you next week"


@pytest.fixture
def source(tmp_path: Path, samples: Path) -> Path:
    folder = tmp_path / "calls"
    folder.mkdir()
    for name in ("en_000.flac", "ko_000.flac", "silence.flac"):
        shutil.copyfile(samples / name, folder / name)
    (folder / "notes | <b>.wav").write_text("not a recording")
    return folder


def artifacts_of(url: str, flow_run_id: Any) -> dict[str, Any]:
    wanted = {"artifacts": {"flow_run_id": {"any_": [str(flow_run_id)]}}}
    answer = httpx.post(f"{url}/artifacts/filter", json=wanted)
    answer.raise_for_status()
    return {artifact["key"]: artifact for artifact in answer.json()}


def test_a_run_has_a_name_progress_a_summary_and_a_list_of_what_failed(
    night: Callable[..., Night], prefect_api: str, source: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "tables"
    done = night(source, dest, advanced=advanced(gpu_price_per_hour=3.0))
    assert (done.summary.landed, done.summary.failed_terminal) == (3, 1)

    run = httpx.get(f"{prefect_api}/flow_runs/{done.flow_run_id}").json()
    assert run["name"] == f"run {datetime.now():%Y-%m-%d} · 4 files · auto"
    assert {"nightscribe", "auto", "fixture"} <= set(run["tags"])

    artifacts = artifacts_of(prefect_api, done.flow_run_id)
    progress, summary = artifacts["nightscribe-progress"], artifacts["nightscribe-summary"]
    assert (progress["type"], progress["data"]) == ("progress", 100.0)
    assert progress["description"].startswith("4 of 4 files · 1 without a transcript · 17 s of audio")
    assert summary["type"] == "markdown"
    for part in ("3 landed, 1 failed for good", "en 1, ko 1", "at 3.00 an hour", str(dest)):
        assert part in summary["data"], part
    (record,) = read_records(open_store(str(dest)))
    for stage in ("list", "fetch", "decode", "vad", "spool", "read", "mel", "encode", "tokens", "texts", "land"):
        assert f"| {stage} | " in summary["data"], stage
        assert record.counts[f"stage_{stage}_s"] > 0, stage
    (failure,) = json.loads(artifacts["nightscribe-failures"]["data"])
    assert failure["file"] == str(source / "notes | <b>.wav")
    assert failure["reason"].startswith("NotAudio: ")
    assert "move it out of SOURCE" in failure["what to do"]

    (page,) = (dest / "_reports").glob("*.html")
    assert page.stem == done.summary.run_id
    assert "notes | &lt;b&gt;.wav" in page.read_text()
    shown = [json.dumps(artifacts, ensure_ascii=False), page.read_text()]
    assert not any(SAID in text for text in shown), "what was said is in the tables alone"

    lines = logs_of(done.flow_run_id)
    for name in ("en_000.flac", "ko_000.flac", "silence.flac", "notes | <b>.wav"):
        assert sum(line.startswith(f"{name}: ") for line in lines) == 1, name

    again = night(source, dest)
    assert httpx.get(f"{prefect_api}/flow_runs/{again.flow_run_id}").json()["name"].endswith("· nothing new · auto")
    assert len(list((dest / "_reports").glob("*.html"))) == 1


def test_a_server_that_takes_no_artifact_costs_a_run_nothing(
    night: Callable[..., Night], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = httpx.Client.send

    def send(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.url.path.startswith("/api/artifacts"):
            return httpx.Response(422, json={"detail": "no artifacts here"}, request=request)
        return real(client, request, **options)

    monkeypatch.setattr(httpx.Client, "send", send)
    done = night(source, tmp_path / "tables", backend="fake")
    assert done.state.is_completed()
    assert done.summary.landed == 3
    lines = logs_of(done.flow_run_id)
    for what in ("progress", "summary"):
        assert any(f"did not take the run's {what} (Client error '422" in line for line in lines), lines
