"""A report as Markdown for Prefect's UI, and as one self-contained page beside the tables."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.report import audio_length
from tasks.reports.plots import quality_plot, throughput_plot
from tasks.reports.run_report import RunReport, duration
from tasks.storage import Store

MOST_PARTS = 50
"""Named one by one; the folder holds all of them."""


def markdown(report: RunReport, *, tables: str, page: str) -> str:
    """For an artifact.

    Args:
        tables: the URI of DEST.
        page: the URI of the page.
    """
    return _render("report.md.j2", report, tables=tables, page=page)


def save_page(store: Store, report: RunReport, *, tables: str) -> str:
    """Writes `_reports/RUN_ID.html` and returns its URI."""
    path = page_path(report.summary.run_id)
    store.replace(path, _render("report.html.j2", report, tables=tables).encode())
    return store.uri_of(path)


def page_path(run_id: str) -> str:
    return f"_reports/{run_id}.html"


def _render(template: str, report: RunReport, **more: str) -> str:
    figures = report.figures
    plots = {"throughput": throughput_plot(figures), "quality": quality_plot(figures)} if report.summary.landed else {}
    return _templates().get_template(template).render(report=report, plots=plots, most_parts=MOST_PARTS, **more)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("tasks.reports", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"duration": duration, "audio_length": audio_length, "cell": _cell}
    return templates


def _cell(text: object) -> str:
    """Text for a cell of a Markdown table, with nothing in it that Markdown would take for its own."""
    for special in "\\`*_[]<>|#~$":
        text = str(text).replace(special, f"&#{ord(special)};")
    return " ".join(str(text).split())
