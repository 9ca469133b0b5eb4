"""A run's figures while it goes on, and what its report says, with hostile names in it."""

from __future__ import annotations

import logging
import math
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.types import Segment, Transcript
from tasks.night_terms import FileFinished
from tasks.report import RunSummary, audio_length
from tasks.reports import live
from tasks.reports.figures import BINS, MOST_FAILURES, MOST_POINTS, Figures, NightFigures, mean_confidence
from tasks.reports.live import progress_line
from tasks.reports.render import MOST_PARTS, markdown, save_page
from tasks.reports.run_report import Cost, RunReport, duration, stage_shares
from tasks.run_record import Failure
from tasks.settings import RunSettings
from tasks.storage import open_store
from tasks.types import AudioFile, FileFailure, LandedPart, LandingBatch, NightPlan
from tests.tasks.builders import NOON, OPTIONS, audio_file, failed, landed

HOSTILE = "s3://calls/<script>alert(1)</script> | `x` [a](javascript:b) 녹음.wav"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def figures_of(files: list[AudioFile]) -> tuple[NightFigures, Clock]:
    clock = Clock()
    plan = NightPlan("1-x", "run", (LandingBatch("b", NOON.date(), OPTIONS, tuple(files)),), len(files), 0, 0, 0)
    return NightFigures(plan, clock=clock), clock


def lasting(file: AudioFile, duration_s: float, speech_s: float, *logprobs: float) -> FileFinished:
    segments = tuple(Segment("x", 0.0, 1.0, None, p, 0.0, 1.0, 0.0, (), ()) for p in logprobs)
    result = landed(file)
    assert result.transcript is not None
    transcript = replace(result.transcript, duration_s=duration_s, speech_s=speech_s, segments=segments)
    return FileFinished(file, replace(result, transcript=transcript))


@given(
    outcomes=st.lists(
        st.one_of(
            st.tuples(st.floats(0, 1e5), st.floats(0, 1), st.floats(-9, 0), st.floats(0, 60)),
            st.sampled_from(["failed", "left"]),
        ),
        max_size=40,
    )
)
def test_figures_add_up(outcomes: list[Any]) -> None:
    files = [audio_file(number) for number in range(len(outcomes))]
    figures, clock = figures_of(files)
    audio_s = 0.0
    for file, outcome in zip(files, outcomes, strict=True):
        if outcome == "failed":
            figures.hear(FileFinished(file, failed(file)))
        elif outcome == "left":
            figures.hear(FileFinished(file, FileFailure(file, "StorageUnavailable", "503", True)))
        else:
            duration_s, share, logprob, took_s = outcome
            clock.now_s += took_s
            audio_s += duration_s
            figures.hear(lasting(file, duration_s, duration_s * share, logprob))
    seen = figures.look()
    good = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    assert (seen.finished, seen.failed) == (len(outcomes), len(outcomes) - len(good))
    assert seen.audio_s == pytest.approx(audio_s)
    assert seen.share == pytest.approx(1.0)
    assert sum(seen.confidences) == len(good)
    assert sum(seen.speech_shares) == sum(1 for outcome in good if outcome[0] > 0)
    assert len(seen.failures) == outcomes.count("failed")
    moments = [(m.elapsed_s, m.audio_s) for m in seen.throughput]
    assert moments == sorted(moments) and moments[-1] == (seen.elapsed_s, seen.audio_s)


def test_figures_of_a_long_night_stay_small_and_keep_its_shape() -> None:
    count = 20_000
    file = audio_file(1)
    figures, clock = figures_of([file])
    for number in range(count):
        clock.now_s += 0.5
        figures.hear(lasting(file, 10.0, 5.0, -0.1))
        if number % 3 == 0:
            figures.hear(FileFinished(file, failed(file)))
    seen = figures.look()
    assert MOST_POINTS / 4 < len(seen.throughput) <= MOST_POINTS
    gaps = [b.elapsed_s - a.elapsed_s for a, b in zip(seen.throughput, seen.throughput[1:], strict=False)]
    assert max(gaps) < 0.02 * seen.elapsed_s, "no stretch of the night is left out"
    assert all(moment.audio_s == pytest.approx(20 * moment.elapsed_s) for moment in seen.throughput)
    assert len(seen.failures) == MOST_FAILURES
    assert seen.rtfx == pytest.approx(20.0)


def test_time_left_goes_by_bytes() -> None:
    small, large = replace(audio_file(1), size_bytes=1_000), replace(audio_file(2), size_bytes=9_000)
    figures, clock = figures_of([small, large])
    assert figures.look().left_s is None
    assert progress_line(figures.look()) == "0 of 2 files · 0 s of audio · starting"
    clock.now_s += 12.0
    figures.hear(lasting(small, 60.0, 30.0, -0.1))
    assert figures.look().left_s == pytest.approx(108.0)
    assert progress_line(figures.look()) == "1 of 2 files · 1.0 min of audio · 5.0 times real time · about 2 min left"
    figures.hear(FileFinished(large, failed(large)))
    assert (
        progress_line(figures.look())
        == "2 of 2 files · 1 without a transcript · 1.0 min of audio · 5.0 times real time"
    )


def test_confidence_is_weighted_by_seconds() -> None:
    def said(*segments: tuple[float, float]) -> Transcript:
        made = tuple(Segment("x", 0.0, s, None, p, 0.0, 1.0, 0.0, (), ()) for s, p in segments)
        return Transcript("x", "ko", 0.9, 9.0, 9.0, 9.0, made, "fake", "fixture")

    assert mean_confidence(said()) is None
    assert mean_confidence(said((3.0, math.log(0.9)), (1.0, math.log(0.5)))) == pytest.approx(0.8)


def test_lengths_as_people_say_them() -> None:
    assert [audio_length(s) for s in (0, 53, 552, 112_320)] == ["0 s", "53 s", "9.2 min", "31.20 h"]
    assert [duration(s) for s in (0.4, 89, 90, 720, 12_240)] == ["0 s", "89 s", "2 min", "12 min", "3.4 h"]


def a_report(*, landed_files: int = 3, price: float | None = 2.5, parts: int = 1) -> RunReport:
    counts = [0] * BINS
    counts[15] = landed_files
    figures = Figures(5, 5, 2, 5400.0, 60.0, 10, 10, (), tuple(counts), tuple(counts), ())
    summary = RunSummary(
        "20261122T023000Z-0a1b2c", 9, 4, 5, landed_files, 1, 1, 5400.0, 60.0, 90.0, "s3://tables/calls"
    )
    failures = (
        Failure(HOSTILE, "v", "NotAudio", f"{HOSTILE}: opens\nnot", False, "r", NOON),
        Failure("s3://calls/late.wav", "v", "StorageUnavailable", "503", True, "r", NOON),
    )
    return RunReport(
        title="nightly 2026-11-22 · 5 files · ko",
        summary=summary,
        figures=figures,
        started_at=NOON,
        ended_at=datetime(2026, 3, 1, 12, 1, tzinfo=UTC),
        source="s3://calls/2026/",
        model="large-v3-turbo",
        backend="faster-whisper",
        compute_type="float16",
        devices=("cuda:0", "cuda:1"),
        model_loads=2,
        languages=(("ko", 2), ("en", 1)),
        speech_s=3600.0,
        stages=stage_shares({"decode": 10.0, "transcribe": 30.0}),
        failures=failures,
        parts=tuple(
            LandedPart("b", f"s3://tables/calls/transcripts/ingest_date=2026-11-22/{number:04d}.parquet", (), True)
            for number in range(parts)
        ),
        cost=Cost(0.0833, price, 2) if price else None,
    )


def test_the_page_is_whole_in_itself_and_no_name_gets_out_of_its_place(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "tables"))
    uri = save_page(store, a_report(parts=MOST_PARTS + 7), tables="s3://tables/calls")
    page = Path(uri).read_text()
    assert Path(uri).relative_to(tmp_path / "tables") == Path("_reports/20261122T023000Z-0a1b2c.html")
    assert "<script" not in page and "&lt;script&gt;" in page
    linked = re.findall(r'(?:src|href)\s*=\s*"?([^"\s>]*)', page)
    assert all(link.startswith(("data:image/png;base64,", "../transcripts/")) for link in linked)
    assert page.count("data:image/png;base64,") == 2
    for said in (
        "nightly 2026-11-22 · 5 files · ko",
        "90.0 times real time",
        "ko 2, en 1",
        "StorageUnavailable (will be retried)",
        "convert it, or move it out of SOURCE",
        "75 %",
        "0.08",
        'href="../transcripts/ingest_date%3D2026-11-22/0000.parquet"',
        "and 7 more",
        "녹음.wav",
    ):
        assert said in page, said


def test_the_markdown_is_tables_that_hold_and_says_where_the_page_is() -> None:
    text = markdown(a_report(), tables="s3://tables/calls", page="s3://tables/calls/_reports/r.html")
    tables = [block.splitlines() for block in text.split("\n\n") if block.lstrip().startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({row.count("|") for row in table if row.strip()}) == 1, table
    assert "| cost | about 0.08, at 2.50 an hour for each of 2 devices |" in text
    assert "`s3://tables/calls/_reports/r.html`" in text
    assert "nightscribe-failures" in text
    assert text.count("](data:image/png;base64,") == 2


def test_a_report_of_nothing_landed_has_no_plots_and_no_price() -> None:
    text = markdown(a_report(landed_files=0, price=None), tables="t", page="p")
    assert "data:image" not in text
    assert "set advanced.gpu_price_per_hour" in text


def test_stage_shares_are_of_the_whole() -> None:
    assert stage_shares({}) == ()
    shares = stage_shares({"a": 1.0, "b": 3.0})
    assert [(s.name, s.share) for s in shares] == [("b", 0.75), ("a", 0.25)]
    assert sum(s.share for s in shares) == 1.0


def test_the_night_does_not_wait_for_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        assert answers.wait(30), "the block was never entered"
        raise httpx.ConnectError("away")

    monkeypatch.setattr(live, "create_progress_artifact", hang)
    figures, _ = figures_of([audio_file(1)])
    settings = RunSettings(source="s", dest="d")
    with live.shown_live("title", settings, figures, logging.getLogger("test"), every_s=0.01):
        answers.set()
