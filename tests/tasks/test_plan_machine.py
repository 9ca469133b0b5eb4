"""Hypothesis plays runs against each other: planned, landed in part, taken for dead, waking up again, content changing.

After every step each file has at most one row; after one last undisturbed run each has exactly one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tasks.land import land_batch
from tasks.liveness import RunIdentity, beat, heartbeat_path
from tasks.parts import list_parts, read_columns
from tasks.plan import make_plan
from tasks.plan_log import mark_done
from tasks.storage import open_store
from tasks.types import AudioFile, LandingBatch, NightPlan
from tests.tasks.builders import OPTIONS, audio_file, landed, stamp

N_FILES = 12
MEMORY = "/dev/shm"
"""Where flushing to disk, which this test does thousands of times, costs nothing."""


@dataclass
class Run:
    """One that planned, and whether it goes on, silent or not, until it marks itself done."""

    plan: NightPlan
    done: bool = False
    to_land: list[LandingBatch] = field(default_factory=list)


class Nights(RuleBasedStateMachine):
    _landings = _checked = 0

    @initialize()
    def empty(self) -> None:
        self.folder = tempfile.mkdtemp(dir=MEMORY if os.path.isdir(MEMORY) else None)
        self.store = open_store(self.folder)
        self.files = [audio_file(number) for number in range(N_FILES)]
        self.runs: list[Run] = []

    def teardown(self) -> None:
        if hasattr(self, "store"):
            try:
                self._end_well()
            finally:
                shutil.rmtree(self.folder)

    def _end_well(self) -> None:
        for run in self.runs:  # whoever is still at work falls silent
            self.store.delete(heartbeat_path(run.plan.run_id))
        last = self._plan(self.files, 8)
        for batch in last.plan.batches:
            land_batch(self.store, batch, [landed(file) for file in batch.files], stamp())
        mark_done(self.store, last.plan)
        # Batches of the silent that were adopted whole may have been landed in part by them: one more run mends it.
        for run in self.runs:
            for batch in run.to_land if not run.done else []:
                land_batch(self.store, batch, [landed(file) for file in batch.files], stamp())
        mend = self._plan(self.files, 8)
        for batch in mend.plan.batches:
            land_batch(self.store, batch, [landed(file) for file in batch.files], stamp())
        counts = self._rows()
        assert all(counts[file.uri, file.version] == 1 for file in self.files)
        assert set(counts.values()) == {1}

    def _plan(self, files: list[AudioFile], per_batch: int) -> Run:
        identity = RunIdentity.here(f"run-{len(self.runs)}")
        beat(self.store, identity)
        plan = make_plan(self.store, files, run=identity, options_hash=OPTIONS, files_per_batch=per_batch)
        run = Run(plan, to_land=list(plan.batches))
        self.runs.append(run)
        return run

    def _rows(self) -> Counter[tuple[str, str]]:
        parts = read_columns(self.store, list(list_parts(self.store, "transcripts")), ("source_uri", "source_version"))
        return Counter(pair for part in parts for pair in zip(*(column.to_pylist() for column in part), strict=True))

    @rule(wanted=st.sets(st.integers(0, N_FILES - 1), min_size=1), per_batch=st.integers(1, 4))
    def plan(self, wanted: set[int], per_batch: int) -> None:
        self._plan([self.files[number] for number in sorted(wanted)], per_batch)

    @precondition(lambda self: any(run.to_land and not run.done for run in self.runs))
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if run.to_land and not run.done]))
        batch = run.to_land.pop(data.draw(st.integers(0, len(run.to_land) - 1)))
        self._landings += 1
        kept = data.draw(st.sets(st.sampled_from(batch.files)))
        land_batch(self.store, batch, [landed(file) for file in batch.files if file in kept], stamp(run.plan.run_id))

    @precondition(lambda self: any(not run.done for run in self.runs))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if not run.done]))
        mark_done(self.store, run.plan)
        self.store.delete(heartbeat_path(run.plan.run_id))
        run.done = True

    @precondition(lambda self: any(run.to_land and not run.done for run in self.runs))
    @rule(data=st.data())
    def finish_unsettled(self, data: st.DataObject) -> None:
        """Ends with creates that timed out and may still arrive: the run goes on landing them after its mark."""
        run = data.draw(st.sampled_from([run for run in self.runs if run.to_land and not run.done]))
        mark_done(self.store, run.plan, unsettled=[batch.batch_id for batch in run.to_land])
        self.store.delete(heartbeat_path(run.plan.run_id))

    @precondition(lambda self: any(not run.done for run in self.runs))
    @rule(data=st.data())
    def fall_silent(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if not run.done]))
        self.store.delete(heartbeat_path(run.plan.run_id))

    @rule(number=st.integers(0, N_FILES - 1))
    def upload_again(self, number: int) -> None:
        file = self.files[number]
        self.files[number] = replace(file, etag=f"{file.etag}+")

    @invariant()
    def no_file_twice(self) -> None:
        if self._landings != self._checked:
            self._checked = self._landings
            assert set(self._rows().values()) <= {1}


TestNights = Nights.TestCase
TestNights.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
