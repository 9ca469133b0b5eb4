"""Nightscribe over a folder, by the protocol of `peer_loop.py`: `python flow_loop.py MODEL DEST OPTIONS < folder`.

The real flow under a Prefect server: plan, split, transcribe, land. The clock runs while files are listed, claimed,
transcribed and landed; it stands still while the workers start and load the model, as for the peers. With "plain" in
the options the same night is worked off without Prefect (`plain_crew.py`). Every order is a task run under Prefect.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import UTC, datetime
from typing import Any

from prefect import flow

from benchmarks.plain_crew import plain_crew_of
from tasks.claim import claim
from tasks.crew import crew_of
from tasks.night import Night
from tasks.night_options import night_options
from tasks.prepare import prepare
from tasks.settings import AdvancedSettings, RunSettings
from tasks.spool import spool_for
from tasks.storage import open_store


class CountedNight(Night):
    orders = 0

    def _send(self, *order: Any) -> None:
        self.orders += 1
        super()._send(*order)


def timed(source: str, dest: str, model: str, options: dict[str, Any]) -> dict[str, Any]:
    crews = plain_crew_of if options.pop("plain", False) else crew_of
    advanced = AdvancedSettings(**options.pop("advanced", {}))
    run = prepare(RunSettings(source=source, dest=dest, model=model, device="cpu", advanced=advanced, **options))
    store = open_store(dest)
    now = datetime.now(UTC)
    began_s = time.perf_counter()
    parts_s: list[float] = []
    with claim(run, store, started_at=now) as claimed:
        plan_s = time.perf_counter() - began_s
        with spool_for(claimed.plan.run_id, None) as spool, crews(run, claimed.plan) as crew:
            while len(crew.model_loads) < run.gpu_workers:
                time.sleep(0.05)
            time.sleep(1.0)  # the CPU workers are there too
            print("loaded", flush=True)
            sys.stdin.readline()
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            night = CountedNight(
                claimed.plan,
                crew,
                night_options(run, spool_uri=spool, now=now),
                on_part=lambda _: parts_s.append(time.perf_counter() - began_s),
            )
            outcome = night.run()
            loads = crew.model_loads
            night_s = time.perf_counter() - began_s
            own_cpu_s = time.process_time() - began_cpu_s
        claimed.unsettled = outcome.unsettled
    return {
        "wall_s": plan_s + night_s,
        "plan_s": plan_s,
        "first_s": plan_s + parts_s[0],
        "flow_cpu_s": own_cpu_s,
        "gpu_pids": [load.pid for load in loads],
        "flow_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "landed": outcome.landed,
        "orders": night.orders,
        "stages_s": outcome.timings_s,
        # All of the workers' time, starting and loading included: their processes have ended.
        "worker_cpu_s": sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]),
    }


def main() -> None:
    model, dest, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    source = json.loads(sys.stdin.readline())
    work = timed if options.get("plain") else flow(name="benchmark")(timed)
    print(json.dumps(work(source, dest, model, options)))


if __name__ == "__main__":
    main()
