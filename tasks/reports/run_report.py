"""What a report of one run says, before it is put as Markdown or as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from stt_engine.types import Seconds
from tasks.night_terms import NightOutcome
from tasks.prepare import PreparedRun
from tasks.report import RunSummary
from tasks.reports.figures import Figures
from tasks.run_record import Failure, RunRecord
from tasks.types import LandedPart


@dataclass(frozen=True, slots=True)
class StageShare:
    """How long the workers spent on one stage, all of them together."""

    name: str
    spent_s: Seconds
    share: float


@dataclass(frozen=True, slots=True)
class Cost:
    """At the price that the settings name; an estimate, since start-up and idling of the machine are not in it."""

    amount: float
    price_per_gpu_hour: float
    devices: int


@dataclass(frozen=True, slots=True)
class RunReport:
    title: str
    summary: RunSummary
    figures: Figures
    started_at: datetime
    ended_at: datetime
    source: str
    model: str
    backend: str
    compute_type: str
    devices: tuple[str, ...]
    model_loads: int
    languages: tuple[tuple[str, int], ...]
    """Files by language, most first."""
    speech_s: Seconds
    stages: tuple[StageShare, ...]
    """Longest first. They overlap, so they say who works hardest, not how long the run took."""
    failures: tuple[Failure, ...]
    parts: tuple[LandedPart, ...]
    cost: Cost | None
    """None where no price is set."""

    @property
    def failed_beyond(self) -> int:
        """Failures that are not named in `failures`."""
        return self.summary.failed_terminal + self.summary.failed_retryable - len(self.failures)


def report_of(
    run: PreparedRun,
    outcome: NightOutcome,
    summary: RunSummary,
    record: RunRecord,
    figures: Figures,
    *,
    title: str,
    ended_at: datetime,
) -> RunReport:
    price = run.settings.advanced.gpu_price_per_hour
    devices = len(run.devices)
    return RunReport(
        title=title,
        summary=summary,
        figures=figures,
        started_at=record.started_at,
        ended_at=ended_at,
        source=run.settings.source,
        model=run.settings.model,
        backend=outcome.backend,
        compute_type=outcome.compute_type,
        devices=run.devices,
        model_loads=int(record.counts["model_loads"]),
        languages=tuple(sorted(outcome.languages.items(), key=lambda pair: (-pair[1], pair[0]))),
        speech_s=outcome.speech_s,
        stages=stage_shares(outcome.timings_s),
        failures=_each_once(record.failures, figures.failures),
        parts=outcome.parts,
        cost=Cost(summary.wall_seconds / 3600 * price * devices, price, devices) if price else None,
    )


def stage_shares(timings_s: Mapping[str, Seconds]) -> tuple[StageShare, ...]:
    total_s = sum(timings_s.values())
    stages = [StageShare(name, spent_s, spent_s / total_s if total_s else 0.0) for name, spent_s in timings_s.items()]
    return tuple(sorted(stages, key=lambda stage: (-stage.spent_s, stage.name)))


def _each_once(left: Sequence[Failure], for_good: Sequence[Failure]) -> tuple[Failure, ...]:
    """What failed for good and was then lost in landing is left for the next run, and said as that."""
    by_uri = {failure.uri: failure for failure in (*for_good, *left)}
    return tuple(sorted(by_uri.values(), key=lambda failure: (failure.retryable, failure.uri)))


def duration(seconds: Seconds) -> str:
    """`42 s`, `12 min`, `3.4 h`, as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
