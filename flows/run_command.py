"""`nightscribe run`: check, run the flow, say what became of it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime

from flows.console import NightBar, stderr, transfer_progress
from flows.embedded_server import start_embedded_server
from flows.options import RunOptions
from flows.prefect_api import no_answer
from flows.prefect_environment import set_defaults
from stt_engine.errors import NightscribeError, UsageError
from tasks.claim import plan_only
from tasks.prepare import PreparedRun, prepare
from tasks.report import RunSummary, summary_of_nothing
from tasks.settings import RunSettings
from tasks.storage import open_store

EXIT_DONE, EXIT_LEFT = 0, 3


def run_once(options: RunOptions) -> int:
    """The whole command; returns the exit status. UsageErrors are raised before anything starts."""
    with transfer_progress() as report:
        run = prepare(options.settings, report=report, writes=not options.dry_run)
    if options.dry_run:
        from flows.dry_run import show_plan

        show_plan(run, now=datetime.now(UTC), as_json=options.json)
        return EXIT_DONE
    set_defaults(verbose=options.verbose)
    _check_prefect()
    summary = nothing_new(run) or run_flow(options.settings)
    if options.json:
        print(json.dumps(asdict(summary), ensure_ascii=False))  # noqa: T201 - the result
    stderr.print(summary.line, highlight=False, soft_wrap=True)
    if summary.failed_retryable or summary.failed_terminal:
        stderr.print(
            f"what failed, and what to do: nightscribe failures {summary.dest}", highlight=False, soft_wrap=True
        )
    return EXIT_LEFT if summary.failed_retryable or summary.cancelled else EXIT_DONE


def _check_prefect() -> None:
    """Raise UsageError where a server is named that does not answer: Prefect itself would end in a trace."""
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is not None and (reason := no_answer(url)) is not None:
        raise UsageError(reason)


def nothing_new(run: PreparedRun) -> RunSummary | None:
    """The summary of a run that would find nothing to do, unless a lasting Prefect server wants to see it happen.

    An embedded server takes many seconds to start, only to be told so. The listing is read no further than to the
    first new file.
    """
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is not None:
        return None
    started_at, began_s = datetime.now(UTC), time.monotonic()
    with stderr.status("looking for new audio"):
        plan = plan_only(run, open_store(run.settings.dest), now=started_at, limit=1)
    if plan.batches:
        return None
    return summary_of_nothing(run, plan, wall_s=time.monotonic() - began_s)


def run_flow(settings: RunSettings) -> RunSummary:
    """One run of the real flow in this process, with a progress bar on stderr."""
    with NightBar() as bar:
        server = start_embedded_server()
        from flows.transcribe_new_audio import transcribe_new_audio  # a core has time for it while the server starts
        from tasks.announce import listening

        if server is not None:
            server.ready()
        parameters = settings.model_dump()
        parameters["advanced"] = settings.advanced
        with listening(bar.hear):
            try:
                state = transcribe_new_audio(**parameters, return_state=True)
            except KeyboardInterrupt:
                stderr.print("interrupted: what has landed stays; the same command goes on with the rest")
                raise
            outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, RunSummary):
        return outcome
    if isinstance(outcome, NightscribeError):
        raise outcome
    if isinstance(outcome, BaseException):
        raise RuntimeError(f"the run ended in state {state.name}: {state.message}") from outcome
    raise RuntimeError(f"the run ended in state {state.name} without a summary: {state.message}")
