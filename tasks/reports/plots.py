"""The two plots of a report: throughput over time; speech share and confidence of the files. PNG, as data URIs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from tasks.reports.figures import BINS, Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, FIRST, SECOND = "#1f2933", "#cbd2d9", "#2b6cb0", "#2f855a"


def throughput_plot(figures: Figures) -> str:
    """Hours of audio done over the time since the plan stood, as a data URI."""
    figure = _figure()
    axes: Axes = figure.subplots()
    minutes = figures.elapsed_s >= 180
    unit_s = 60.0 if minutes else 1.0
    audio_in_hours = figures.audio_s >= 3600
    audio_unit_s = 3600.0 if audio_in_hours else 60.0
    times = [0.0, *(moment.elapsed_s / unit_s for moment in figures.throughput)]
    audio = [0.0, *(moment.audio_s / audio_unit_s for moment in figures.throughput)]
    axes.plot(times, audio, color=FIRST, linewidth=2, drawstyle="steps-post", label="audio done")
    axes.plot([0, times[-1]], [0, audio[-1]], color=FAINT, linewidth=1.2, linestyle="--", label="mean")
    axes.set_xlabel("minutes since the plan" if minutes else "seconds since the plan")
    axes.set_ylabel("hours of audio" if audio_in_hours else "minutes of audio")
    axes.set_title("Throughput", loc="left")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper left")
    return _data_uri(figure, axes)


def quality_plot(figures: Figures) -> str:
    """How many files have which share of speech, and which confidence, as a data URI."""
    figure = _figure()
    left, right = figure.subplots(1, 2, sharey=False)
    for axes, counts, colour, title, label in (
        (left, figures.speech_shares, SECOND, "Speech share", "share of the recording that is speech"),
        (right, figures.confidences, FIRST, "Confidence", "mean probability of what is written"),
    ):
        axes.bar([(n + 0.5) / BINS for n in range(BINS)], counts, width=0.9 / BINS, color=colour)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, max(1, *counts) * 1.1)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_title(title, loc="left")
        axes.set_xlabel(label)
        axes.set_ylabel("files")
    return _data_uri(figure, left, right)


def _figure() -> Figure:
    # Not pyplot: that keeps figures alive, and looks for a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(8, 3), dpi=144, layout="constrained", facecolor="white")


def _data_uri(figure: Figure, *drawn: Axes) -> str:
    for axes in drawn:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=INK, labelsize=9)
        axes.title.set_color(INK)
        axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.6)
        axes.set_axisbelow(True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
