"""What a person at a terminal sees: a progress bar on stderr, tables on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from stt_engine.models import Progress as Transfer
from tasks.announce import Event
from tasks.night_terms import FileFinished
from tasks.one_line import one_line
from tasks.report import audio_length
from tasks.types import FileFailure, LandedPart, NightPlan

stdout = Console(soft_wrap=False)
stderr = Console(stderr=True)


def results_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@contextmanager
def transfer_progress() -> Iterator[Callable[[Transfer], None]]:
    """A bar for each thing that is fetched or converted; nothing at all where nothing is."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=stderr)
    tasks: dict[str, TaskID] = {}

    def report(progress: Transfer) -> None:
        bar.start()
        if progress.doing not in tasks:
            tasks[progress.doing] = bar.add_task(progress.doing, total=progress.total_bytes)
        bar.update(tasks[progress.doing], completed=progress.done_bytes, total=progress.total_bytes)

    try:
        yield report
    finally:
        if tasks:
            bar.stop()


@contextmanager
def row_progress(doing: str) -> Iterator[Callable[[int], None]]:
    """A count of the rows that were looked at."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn())
    with Progress(*columns, console=stderr) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda rows: bar.advance(task, rows)


class NightBar:
    """The progress of a night: files done, hours of audio, how many times real time, what failed."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),  # what is left of the line
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=stderr,
            expand=True,
        )
        self._task = self._progress.add_task("starting Prefect", total=None, note="")
        self._audio_s = 0.0
        self._failed = self._rows = 0

    def __enter__(self) -> NightBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def hear(self, event: Event) -> None:
        if isinstance(event, NightPlan):
            self._progress.reset(self._task, total=len(event.files), description="transcribing", note="")
        elif isinstance(event, FileFinished):
            outcome = event.outcome
            if isinstance(outcome, FileFailure) or outcome.transcript is None:
                self._failed += 1
                self._progress.console.print(
                    one_line(f"{outcome.error_type}: {outcome.error_message}"),
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            else:
                self._audio_s += outcome.transcript.duration_s
            self._progress.advance(self._task)
        elif isinstance(event, LandedPart):
            self._rows += len(event.landed_files)
        self._progress.update(self._task, note=self._note())

    def _note(self) -> str:
        elapsed_s = self._progress.tasks[0].elapsed or 0.0
        speed = f" · {self._audio_s / elapsed_s:.0f}x" if elapsed_s > 0 and self._audio_s else ""
        failed = f" · [red]{self._failed} failed[/red]" if self._failed else ""
        return f"{audio_length(self._audio_s)}{speed} · {self._rows} {'row' if self._rows == 1 else 'rows'}{failed}"
