"""A run without audio, as its own process: plan, land what was planned, say each step on stdout, mark done.

    python -m tests.tasks.landing_run DEST RUN_ID N_FILES SEED

Its parent kills it at a step of its choice. Some files "fail retryably" and get no row; some fail for good.
"""

from __future__ import annotations

import random
import sys

from tasks.land import land_batch, repair_derived
from tasks.liveness import Heartbeat, RunIdentity
from tasks.plan import make_plan
from tasks.plan_log import mark_done
from tasks.storage import open_store
from tests.tasks.builders import OPTIONS, audio_files, failed, landed, stamp


def main(dest: str, run_id: str, n_files: int, seed: int) -> None:
    chance = random.Random(seed)
    store = open_store(dest)
    run = RunIdentity.here(run_id)
    repair_derived(store)
    _say("ready")
    sys.stdin.readline()  # all runs start planning at once
    with Heartbeat(store, run):
        plan = make_plan(store, audio_files(n_files), run=run, options_hash=OPTIONS, files_per_batch=8)
        _say(f"planned {len(plan.files)} {plan.plan_id}")
        for batch in plan.batches:
            files = [file for file in batch.files if seed == 0 or chance.random() < 0.8]
            results = [failed(file) if number % 5 == 0 else landed(file) for number, file in enumerate(files)]
            _say(f"landing {batch.batch_id}")
            land_batch(store, batch, results, stamp(run_id))
            _say(f"landed {batch.batch_id}")
        mark_done(store, plan)
    _say("done")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
