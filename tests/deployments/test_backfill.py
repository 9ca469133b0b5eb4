"""Backfills through `prefect deployment run`: what lands, and what somebody's mistake looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.deployments.site import PREFECT, SIMPLE_FORM, Site, landed, wait_until
from tests.long_form import long

TODAY, TOMORROW = SIMPLE_FORM["modified_since"], SIMPLE_FORM["modified_before"]


@pytest.mark.usefixtures("worker")
def test_a_backfill_from_the_command_line(site: Site, tmp_path: Path) -> None:
    parameters = [f"modified_since={TODAY}", f"modified_before={TOMORROW}", f"dest={tmp_path}/tables"]
    options = [part for parameter in parameters for part in ("--param", parameter)]
    done = site.command(*PREFECT, "deployment", "run", "backfill/backfill", *options, "--watch")
    assert "Completed" in done.stdout
    assert landed(tmp_path / "tables") == [
        ("en_000.flac", "how can i help you next week"),
        ("en_002.flac", "your invoice number is zero zero three"),
        ("ko_000.flac", "가격은 십 원입니다"),
    ]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ({"modified_since": TOMORROW, "modified_before": TODAY}, ["modified_since", "must be before modified_before"]),
        ({"model": "large-v9"}, ["no model 'large-v9'", "Did you mean"]),
        ({"source": "/nowhere/at-all"}, ["/nowhere/at-all"]),
        pytest.param({"key_pattern": "(?P<agent"}, ["--key-pattern", "is not a regular expression"], marks=long),
    ],
)
def test_a_mistake_across_fields_is_one_line_in_seconds(
    site: Site, tmp_path: Path, mistake: dict[str, Any], said: list[str]
) -> None:
    run = site.start_run("backfill/backfill", **SIMPLE_FORM | {"dest": f"{tmp_path}/tables"} | mistake)
    state = site.final_state(run, timeout_s=30)
    assert state["type"] == "FAILED"
    assert all(part in state["message"] for part in said), state["message"]
    assert "\n" not in state["message"] and "encountered an exception" not in state["message"]
    assert site.api("GET", f"/flow_runs/{run}")["total_run_time"] < 10


@pytest.mark.postgres
@pytest.mark.usefixtures("worker")
def test_a_run_that_fails_raises_an_alert(site: Site, tmp_path: Path, alerts: tuple[str, list[str]]) -> None:
    """With its name, what it said and where to look. On SQLite the server may lose the event."""
    mistake = {"key_pattern": "(?P<agent", "dest": f"{tmp_path}/tables"}
    run = site.start_run("backfill/backfill", **SIMPLE_FORM | mistake)
    state = site.final_state(run, timeout_s=30)
    flow_run = site.api("GET", f"/flow_runs/{run}")

    def alerted() -> bool:
        return any(flow_run["name"] in text and state["message"] in text and run in text for text in alerts[1])

    wait_until(alerted, 30, lambda: str(alerts[1]))
