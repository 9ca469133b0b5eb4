"""What one `make deploy` leaves on a server, and what a second one does not change."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tasks.compact import LARGEST_TARGET_BYTES, TARGET_BYTES
from tasks.settings import RunSettings
from tests.deployments.site import ROOT, SIMPLE_FORM, Site, wait_until

NIGHTLY, BACKFILL, COMPACT = "transcribe-new-audio/nightly", "backfill/backfill", "compact/compact"


def test_deployments_and_the_limit_they_share(site: Site, inbox: Path) -> None:
    nightly, backfill = site.deployment(NIGHTLY), site.deployment(BACKFILL)
    assert [(s["schedule"]["cron"], s["schedule"]["timezone"], s["active"]) for s in nightly["schedules"]] == [
        ("30 2 1 1 *", "Asia/Seoul", True)
    ]
    assert nightly["parameters"] == {
        "source": str(inbox),
        "dest": site.environment["NIGHTSCRIBE_DEST"],
        "model": "fixture",
        "language": "auto",
        "device": "cpu",
        "settle_seconds": 300,
    }
    for deployment, strategy in ((nightly, "CANCEL_NEW"), (backfill, "ENQUEUE")):
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == strategy
        assert deployment["work_pool_name"] == "gpu"
    assert backfill["schedules"] == []
    pool = site.api("GET", "/work_pools/gpu")
    assert (pool["type"], pool["concurrency_limit"]) == ("process", 1)
    queues = site.api("POST", "/work_pools/gpu/queues/filter", json={})
    priorities = {queue["name"]: queue["priority"] for queue in queues}
    assert priorities["nightly"] < priorities["backfill"] < priorities["upkeep"]


def test_the_weekly_compaction(site: Site) -> None:
    compact = site.deployment(COMPACT)
    (schedule,) = compact["schedules"]
    shown = schedule["schedule"]
    assert (shown["cron"], shown["timezone"], schedule["active"]) == ("0 3 1 1 *", "Asia/Seoul", True)
    assert compact["parameters"] == {"dest": site.environment["NIGHTSCRIBE_DEST"]}
    assert (compact["work_pool_name"], compact["work_queue_name"]) == ("gpu", "upkeep")
    form = compact["parameter_openapi_schema"]
    assert form["required"] == ["dest"]
    assert [name for name, shown in form["properties"].items() if not shown.get("description")] == []
    assert form["properties"]["target_bytes"]["maximum"] == LARGEST_TARGET_BYTES
    assert form["properties"]["target_bytes"]["default"] == TARGET_BYTES


def test_forgetting_a_recording_has_a_form(site: Site) -> None:
    forget = site.deployment("forget/forget")
    assert forget["schedules"] == []
    assert forget["parameters"] == {"dest": site.environment["NIGHTSCRIBE_DEST"]}
    form = forget["parameter_openapi_schema"]
    assert form["required"] == ["uri", "dest"]
    assert [name for name, shown in form["properties"].items() if not shown.get("description")] == []


def test_the_schedule_makes_runs(site: Site) -> None:
    """It made none with SQLAlchemy 2.1, and only the server's log said so."""
    wanted = {
        "deployments": {"name": {"any_": ["nightly"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }

    def scheduled() -> list[str]:
        runs = site.api("POST", "/flow_runs/filter", json=wanted)
        return [run["expected_start_time"] for run in runs if run["auto_scheduled"]]

    wait_until(lambda: bool(scheduled()), 90)
    # The first of January, 02:30 in Seoul.
    assert all("-12-31T17:30:00" in moment for moment in scheduled()), scheduled()


def test_deploying_again_changes_nothing(site: Site) -> None:
    before = site.api("POST", "/automations/filter", json={})
    said = site.deploy()
    after = site.api("POST", "/automations/filter", json={})
    assert Counter(automation["name"] for automation in after) == {
        "nightscribe crash zombie runs": 1,
        "nightscribe crash runs that never began": 1,
        "nightscribe crash runs that nobody cancels": 1,
        "nightscribe alert of a failed run": 1,
        "nightscribe alert of a missing night": 1,
    }
    assert said.count(": unchanged") == 5
    assert sorted(a["id"] + a["updated"] for a in before) == sorted(a["id"] + a["updated"] for a in after)
    assert site.api("POST", "/deployments/count", json={}) == 4


@pytest.mark.postgres
def test_a_night_that_is_missing_raises_an_alert(site: Site, alerts: tuple[str, list[str]], tmp_path: Path) -> None:
    """As it is shipped, with 10 s instead of 26 hours."""
    shipped = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())["automations"]
    (missing,) = (automation for automation in shipped if automation["name"] == "nightscribe alert of a missing night")
    assert missing["trigger"]["within"] == 26 * 3600
    missing["trigger"]["within"] = 10
    file = tmp_path / "automations.yaml"
    file.write_text(yaml.safe_dump({"automations": [missing]}))
    before = len(alerts[1])
    try:
        assert "nightscribe alert of a missing night: updated" in site.deploy(
            "--automations-only", "--automations", str(file)
        )

        def alerted() -> bool:
            return any("no nightly has completed for 26 hours" in text for text in alerts[1][before:])

        wait_until(alerted, 60, lambda: str(alerts[1][before:]))
    finally:
        site.deploy("--automations-only")


def test_says_what_is_not_set() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/deploy.py"], cwd=ROOT, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "NIGHTSCRIBE_SOURCE: the recordings" in done.stderr and "PREFECT_API_URL" in done.stderr


def flat(schema: dict[str, Any]) -> dict[str, Any]:
    """The constraints of a parameter, whether it may be left out or not."""
    alternatives = [kind for kind in schema.get("anyOf", []) if kind.get("type") != "null"]
    return {**schema, **(alternatives[0] if alternatives else {})}


@pytest.mark.parametrize("name", [NIGHTLY, BACKFILL])
def test_every_parameter_of_the_form_is_described_and_bounded(site: Site, name: str) -> None:
    form = site.deployment(name)["parameter_openapi_schema"]
    advanced = form["definitions"]["AdvancedSettings"]["properties"]
    described = [*form["properties"].values(), *advanced.values()]
    assert [p["title"] for p in described if not p.get("description") and "$ref" not in p] == []

    bounds = {"minimum", "maximum", "exclusiveMinimum", "pattern", "maxLength", "enum"}
    checked = RunSettings.model_json_schema(mode="validation")["properties"]
    for title, shown in form["properties"].items():
        promised = flat(checked[title])
        wanted = {key: promised[key] for key in bounds if key in promised}
        assert {key: flat(shown)[key] for key in wanted} == wanted, f"{title}: the run refuses what the form lets pass"


def test_the_fake_backend_is_no_choice(site: Site) -> None:
    form = site.deployment(BACKFILL)["parameter_openapi_schema"]
    assert form["properties"]["backend"]["enum"] == ["auto", "faster-whisper", "transformers", "openai-whisper"]


def test_the_days_of_a_backfill_are_required_dates(site: Site) -> None:
    form = site.deployment(BACKFILL)["parameter_openapi_schema"]
    assert form["required"] == ["source", "dest", "modified_since", "modified_before"]
    assert {form["properties"][day]["format"] for day in ("modified_since", "modified_before")} == {"date"}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "'modified_since' is a required property"),
        ({**SIMPLE_FORM, "modified_since": None}, "modified_since"),
        ({**SIMPLE_FORM, "limit": 0}, "less than the minimum"),
        ({**SIMPLE_FORM, "device": "tpu"}, "device"),
        ({**SIMPLE_FORM, "task": "summarise"}, "task"),
        ({**SIMPLE_FORM, "advanced": {"beam_size": 99}}, "greater than the maximum"),
    ],
)
def test_what_is_out_of_bounds_is_refused_before_a_run_exists(
    site: Site, parameters: dict[str, Any], said: str
) -> None:
    before = site.api("POST", "/flow_runs/count", json={"deployments": {"name": {"any_": ["backfill"]}}})
    with pytest.raises(httpx.HTTPStatusError) as refusal:
        site.start_run(BACKFILL, **parameters)
    assert refusal.value.response.status_code == 409
    assert said in refusal.value.response.text
    after = site.api("POST", "/flow_runs/count", json={"deployments": {"name": {"any_": ["backfill"]}}})
    assert after == before
