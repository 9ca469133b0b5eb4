"""What a run came to: one typed summary for the command line, the run record and the final state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from stt_engine import __version__
from stt_engine.types import Seconds
from tasks.night_terms import NightOutcome
from tasks.prepare import PreparedRun
from tasks.run_record import Failure, RunRecord
from tasks.runners.worker_process import WorkerLoad
from tasks.settings import RunSettings
from tasks.types import NightPlan


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The figures of `nightscribe run --json`, under the same names."""

    run_id: str
    discovered: int
    already_done: int
    planned: int
    landed: int
    failed_terminal: int
    failed_retryable: int
    audio_seconds: Seconds
    wall_seconds: Seconds
    rtfx: float
    """Audio seconds per wall second of the flow run."""
    dest: str
    not_started: int = 0
    """Planned, but left for the next run when the stop time came or the run was cancelled."""
    deferred: int = 0
    """Still being written, or younger than the settle time: left for the next run."""
    claimed_elsewhere: int = 0
    """Another run is working on them."""
    cancelled: bool = False

    @property
    def line(self) -> str:
        if not self.planned:
            found = f"nothing is new: {self.discovered} files found, {self.already_done} done already"
            extra = _extra(being_written=self.deferred, with_another_run=self.claimed_elsewhere)
            return found + extra
        extra = _extra(
            failed_for_good=self.failed_terminal,
            to_be_retried=self.failed_retryable,
            not_started=self.not_started,
            being_written=self.deferred,
            with_another_run=self.claimed_elsewhere,
        )
        cancelled = "cancelled: " if self.cancelled else ""
        return (
            f"{cancelled}{self.landed} of {self.planned} files landed{extra}; "
            f"{audio_length(self.audio_seconds)} of audio in {self.wall_seconds:.1f} s, "
            f"{self.rtfx:.1f} times real time"
        )


def audio_length(seconds: Seconds) -> str:
    """`53 s`, `9.2 min`, `31.20 h`: of audio."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"


def _extra(**counts: int) -> str:
    return "".join(f", {count} {name.replace('_', ' ')}" for name, count in counts.items() if count)


def describe(plan: NightPlan) -> str:
    """One line for the log."""
    extra = _extra(being_written=plan.deferred, with_another_run=plan.claimed_elsewhere)
    return (
        f"run {plan.run_id}: {plan.discovered} files found, {plan.already_done} done already, "
        f"{len(plan.files)} planned in {len(plan.batches)} landing batches{extra}"
    )


def summary_of(
    run: PreparedRun, plan: NightPlan, outcome: NightOutcome, *, started_at: datetime, ended_at: datetime
) -> RunSummary:
    wall_s = (ended_at - started_at).total_seconds()
    return RunSummary(
        run_id=plan.run_id,
        discovered=plan.discovered,
        already_done=plan.already_done,
        planned=len(plan.files),
        landed=outcome.landed,
        failed_terminal=outcome.failed_terminal,
        failed_retryable=len(outcome.failures_left),
        audio_seconds=round(outcome.audio_s, 3),
        wall_seconds=round(wall_s, 3),
        rtfx=round(outcome.audio_s / wall_s, 2) if wall_s > 0 else 0.0,
        dest=run.settings.dest,
        not_started=outcome.not_started,
        deferred=plan.deferred + len(outcome.deferred),
        claimed_elsewhere=plan.claimed_elsewhere,
        cancelled=outcome.cancelled,
    )


def summary_of_nothing(run: PreparedRun, plan: NightPlan, *, wall_s: Seconds) -> RunSummary:
    """Of a run that has nothing to do."""
    return RunSummary(
        run_id=plan.run_id,
        discovered=plan.discovered,
        already_done=plan.already_done,
        planned=0,
        landed=0,
        failed_terminal=0,
        failed_retryable=0,
        audio_seconds=0.0,
        wall_seconds=round(wall_s, 3),
        rtfx=0.0,
        dest=run.settings.dest,
        deferred=plan.deferred,
        claimed_elsewhere=plan.claimed_elsewhere,
    )


def record_of(
    run: PreparedRun,
    plan: NightPlan,
    outcome: NightOutcome,
    summary: RunSummary,
    loads: Sequence[WorkerLoad],
    *,
    started_at: datetime,
    ended_at: datetime,
) -> RunRecord:
    figures = {name: value for name, value in asdict(summary).items() if isinstance(value, int | float)}
    stages = {f"stage_{name}_s": round(wall_s, 3) for name, wall_s in outcome.timings_s.items()}
    models = {"model_loads": len(loads), "model_load_s": round(sum(load.load_s for load in loads), 3)}
    return RunRecord(
        run_id=plan.run_id,
        started_at=started_at,
        ended_at=ended_at,
        source=run.settings.source,
        dest=run.settings.dest,
        options=_options(run.settings),
        options_hash=run.options_hash,
        counts=figures | stages | models,
        failures=tuple(
            Failure(
                uri=failure.file.uri,
                version=failure.file.version,
                error_type=failure.error_type,
                message=failure.error_message,
                retryable=True,
                run_id=plan.run_id,
                failed_at=ended_at,
            )
            for failure in outcome.failures_left
        ),
        versions={"nightscribe": __version__, "backend": outcome.backend, "compute_type": outcome.compute_type},
    )


def _options(settings: RunSettings) -> Mapping[str, str]:
    given = settings.model_dump(mode="json", exclude={"source", "dest"})
    return {name: str(value) for name, value in given.items()}
