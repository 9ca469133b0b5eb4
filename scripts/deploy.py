"""`make deploy`: the work pool, the deployments and the automations, on the server that PREFECT_API_URL names.

Safe to run again: what is there is brought up to date, what is as it should be is left alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "deployments"
POOL = "gpu"
QUEUES = {"nightly": 1, "backfill": 2, "upkeep": 3}
"""Priorities: of the runs that wait for the GPU the nightly goes first."""
ALERT_BLOCK = "nightscribe-alert"
REQUIRED = {
    "PREFECT_API_URL": "the Prefect server's address, e.g. http://localhost:4200/api",
    "NIGHTSCRIBE_SOURCE": "the recordings, e.g. s3://calls/2026/",
    "NIGHTSCRIBE_DEST": "the tables, e.g. s3://tables/calls",
}
DEFAULTS = {
    "NIGHTSCRIBE_MODEL": "large-v3-turbo",
    "NIGHTSCRIBE_LANGUAGE": "auto",
    "NIGHTSCRIBE_DEVICE": "auto",
    "NIGHTSCRIBE_CRON": "30 2 * * *",
    "NIGHTSCRIBE_COMPACT_CRON": "0 12 * * 0",
    "NIGHTSCRIBE_TIMEZONE": "UTC",
    "NIGHTSCRIBE_GPU_RUNS": "1",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--automations-only", action="store_true", help="leave the pool and the deployments alone")
    parser.add_argument("--automations", type=Path, default=FILES / "automations.yaml", help="another file of them")
    arguments = parser.parse_args()
    environment = DEFAULTS | {name: value for name, value in os.environ.items() if value}
    if missing := [f"{name}: {meaning}" for name, meaning in REQUIRED.items() if name not in environment]:
        print("set these first:", *missing, sep="\n  ", file=sys.stderr)
        return 2
    with get_client(sync_client=True) as client:
        if not arguments.automations_only:
            apply_pool(client, gpu_runs=int(environment["NIGHTSCRIBE_GPU_RUNS"]))
            command = ["--no-prompt", "deploy", "--all", "--prefect-file", str(FILES / "prefect.yaml")]
            subprocess.run([sys.executable, "-m", "prefect", *command], cwd=ROOT, env=environment, check=True)
        apply_automations(client, arguments.automations, alert_url=environment.get("NIGHTSCRIBE_ALERT_URL"))
    return 0


def apply_pool(client: SyncPrefectClient, *, gpu_runs: int) -> None:
    """A process pool whose limit is shared by all deployments: that is what keeps two runs off one GPU."""
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", concurrency_limit=gpu_runs))
    client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=gpu_runs))
    for name, priority in QUEUES.items():
        try:
            queue = client.read_work_queue_by_name(name, work_pool_name=POOL)
        except ObjectNotFound:
            queue = client.create_work_queue(name, work_pool_name=POOL, priority=priority)
        if queue.priority != priority:
            client.update_work_queue(queue.id, priority=priority)
    print(f"work pool {POOL}: {gpu_runs} run(s) at a time")


def apply_automations(client: SyncPrefectClient, file: Path, *, alert_url: str | None) -> None:
    """Each automation of the file exactly once on the server, found again by its name."""
    block_id = save_alert_block(alert_url) if alert_url else None
    for wanted in yaml.safe_load(file.read_text())["automations"]:
        alerts = [action for action in wanted["actions"] if action["type"] == "send-notification"]
        if alerts and block_id is None:
            print(f"{wanted['name']}: left out, NIGHTSCRIBE_ALERT_URL is not set")
            continue
        for action in alerts:
            action["block_document_id"] = block_id
        print(f"{wanted['name']}: {apply_automation(client, AutomationCore.model_validate(wanted))}")


def apply_automation(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    first, *others = client.read_automations_by_name(wanted.name) or [None]
    for surplus in others:
        if surplus is not None:
            client.delete_automation(surplus.id)
    if first is None:
        client.create_automation(wanted)
        return "created"
    if as_compared(first) == as_compared(wanted):
        # An update would start the 26 hours anew, and undo a pause.
        return "unchanged"
    client.update_automation(first.id, wanted)
    return "updated"


def as_compared(automation: AutomationCore) -> dict[str, Any]:
    # Not as JSON: what a trigger expects is a set, whose order as a list differs from process to process.
    return automation.model_dump(mode="python", include={"name", "description", "trigger", "actions"})


def save_alert_block(url: str) -> str:
    """The web hook that alerts go to. The address is kept as a secret: whoever knows it can write to the channel."""
    block = CustomWebhookNotificationBlock(
        name=ALERT_BLOCK,
        url="{{ url }}",
        # What Slack, Mattermost and Google Chat take.
        json_data={"text": "{{ subject }}\n{{ body }}"},
        secrets={"url": url},
    )
    return str(block.save(ALERT_BLOCK, overwrite=True))


if __name__ == "__main__":
    sys.exit(main())
