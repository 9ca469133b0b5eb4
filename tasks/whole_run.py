"""One run from its options to its final state: the body that every flow in flows/ shares."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Failed
from pydantic import ValidationError

from stt_engine.errors import NightscribeError, UsageError
from stt_engine.types import Seconds
from tasks.announce import Logger, announce, tell
from tasks.cancel import CancelWatch
from tasks.claim import claim
from tasks.crew import crew_of
from tasks.night import Night
from tasks.night_options import night_options
from tasks.night_terms import FileFinished
from tasks.prepare import PreparedRun, prepare
from tasks.redaction import redact_logs, redacted
from tasks.report import describe, record_of, summary_of
from tasks.reports import live, render
from tasks.reports.figures import NightFigures
from tasks.reports.run_report import RunReport, report_of
from tasks.run_record import save_record
from tasks.settings import RunSettings
from tasks.spool import spool_for
from tasks.storage import Store, open_store


def whole_run(**options: Any) -> State:
    """Check, plan, transcribe, land, and compute the final state. Called in a flow, with the fields of `RunSettings`.

    Returns:
        Completed, Failed (retryable failures are left) or Cancelled, with the `RunSummary`; or Failed at once with the
        error, where the options cannot be used: its message is one line that says what to change.
    """
    started_at, began_s = datetime.now(UTC), time.monotonic()
    redact_logs()
    try:
        return _night_of(prepare(RunSettings(**options)), started_at, began_s)
    except ValidationError as error:
        return _refused(UsageError(in_one_line(error)))
    except NightscribeError as error:  # true for the whole run: what is a file's own stays with the file
        return _refused(error)


def in_one_line(error: ValidationError) -> str:
    """`advanced.beam_size: Input should be ...; ...` instead of Pydantic's paragraph for each mistake."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, "))))
        for fault in error.errors()
    )


def _refused(error: NightscribeError) -> State:
    line = redacted(" ".join(str(error).split()))
    get_run_logger().error(line)
    return Failed(message=line, data=error)


def _night_of(run: PreparedRun, started_at: datetime, began_s: Seconds) -> State:
    log = get_run_logger()
    settings = run.settings
    store = open_store(settings.dest)
    with claim(run, store, started_at=started_at) as claimed:
        plan = claimed.plan
        announce(plan)
        log.info(describe(plan))
        title = live.run_title(settings, files=len(plan.files), now=started_at)
        figures = NightFigures(plan)

        def hear(finished: FileFinished) -> None:
            figures.hear(finished)
            tell(finished, log)

        with (
            spool_for(plan.run_id, settings.advanced.spool) as spool,
            CancelWatch() as cancel,
            crew_of(run, plan) as crew,
            live.shown_live(title, settings, figures, log),
        ):
            options = night_options(run, spool_uri=spool, now=started_at)
            night = Night(
                plan, crew, options, on_file=hear, on_part=announce, crew_size=crew.size, cancelled=cancel.is_wanted
            )
            ended: TerminationSignal | None = None
            try:
                outcome = night.run()
            except TerminationSignal as signal:
                if not cancel.look():
                    raise  # the next run adopts what is claimed
                ended, outcome = signal, night.cut_short()
            loads = crew.model_loads
            if outcome.cancelled:
                crew.abandon()
        claimed.unsettled = outcome.unsettled
        for load in loads:
            log.info("model loaded in %.1f s by worker process %d on %s", load.load_s, load.pid, load.device)
        outcome = replace(outcome, timings_s={"list": claimed.list_s, **outcome.timings_s})
        ended_at = started_at + timedelta(seconds=time.monotonic() - began_s)  # a clock may jump during a night
        summary = summary_of(run, plan, outcome, started_at=started_at, ended_at=ended_at)
        if plan.batches:
            record = record_of(run, plan, outcome, summary, loads, started_at=started_at, ended_at=ended_at)
            try:
                save_record(store, record)
                _report(
                    store, report_of(run, outcome, summary, record, figures.look(), title=title, ended_at=ended_at), log
                )
            except NightscribeError as error:  # the rows are what counts, and they are where they are
                log.error("the record or the report of run %s could not be written: %s", plan.run_id, error)
    log.info(summary.line)
    if ended is not None:
        raise ended  # Prefect, whose worker sent it, sets the state
    if outcome.cancelled:
        return Cancelled(message=summary.line, data=summary)
    if summary.failed_retryable:
        return Failed(message=summary.line, data=summary)
    return Completed(message=summary.line, data=summary)


def _report(store: Store, report: RunReport, log: Logger) -> None:
    tables = report.summary.dest
    page = render.save_page(store, report, tables=tables)
    text = render.markdown(report, tables=tables, page=page)
    live.show_summary(text, report.title, report.failures, log)
    log.info("report: %s", page)
