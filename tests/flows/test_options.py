"""Which files a night takes up, and how they are transcribed: every option through the whole path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks import night_options
from tasks.night_terms import NightOptions
from tests.flows.conftest import Night
from tests.flows.tables import query, rows

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def put(folder: Path, sample: Path, *names: str) -> None:
    """The same recording under several names, one hour apart."""
    for hours, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample, path)
        moment = (NOON + timedelta(hours=hours)).timestamp()
        os.utime(path, (moment, moment))


def test_patterns_dates_order_and_limits_choose_the_files(
    night: Callable[..., Night], samples: Path, tmp_path: Path
) -> None:
    source, dest = tmp_path / "calls", tmp_path / "tables"
    put(
        source,
        samples / "en_000.flac",
        "kim/1.flac",
        "kim/2.FLAC",
        "lee/3.flac",
        "lee/4.WAV",
        "lee/5.flac",
        "park/6.flac",
        "park/7.Flac",
    )
    chosen = {
        "backend": "fake",
        "pattern": ["kim/*", "lee/*.flac", "park/?.fl*"],
        "modified_since": NOON + timedelta(hours=1),
        "modified_before": NOON + timedelta(hours=6),
        "newest_first": True,
        "limit": 2,
        "key_pattern": r"(?P<agent>\w+)/(?P<call_id>\d+)",
    }
    # Left by these: 2.FLAC, 3, 5 and 6; 4.WAV fits no pattern, 1 is too old and 7 too new.
    first = night(source, dest, **chosen)
    assert set(rows(dest)) == {"6.flac", "5.flac"}
    assert (first.summary.planned, first.summary.landed) == (2, 2)
    second = night(source, dest, **chosen)
    assert (second.summary.planned, second.summary.already_done) == (2, 2)
    assert set(rows(dest)) == {"6.flac", "5.flac", "3.flac", "2.FLAC"}
    assert {row["labels"]["agent"] for row in rows(dest).values()} == {"kim", "lee", "park"}

    os.utime(source / "lee/4.WAV")
    third = night(source, dest, backend="fake", settle_seconds=300.0)
    assert (third.summary.planned, third.summary.deferred) == (2, 1), "4.WAV is still being written"
    assert set(rows(dest)) == {"1.flac", "2.FLAC", "3.flac", "5.flac", "6.flac", "7.Flac"}


def test_what_is_asked_for_reaches_the_backend(
    night: Callable[..., Night], samples: Path, recordings: Path, tmp_path: Path
) -> None:
    source, dest = tmp_path / "calls", tmp_path / "tables"
    put(source, samples / "en_000.flac", "call.flac")
    shutil.copy(recordings / "stereo_diarization.wav", source / "stereo.wav")
    night(
        source,
        dest,
        backend="fake",
        task="translate",
        language="ko",
        timestamps="none",
        channels="split",
        initial_prompt="Nightscribe, a call centre",
        hotwords="charger invoice",
        gpu_workers=2,
        cpu_workers=2,
    )
    found = rows(dest)
    assert all(row["text"].startswith("translated ko ") for row in found.values())
    assert {row["language"] for row in found.values()} == {"ko"}
    assert {segment["channel"] for segment in found["stereo.wav"]["segments"]} == {0, 1}
    assert {segment["channel"] for segment in found["call.flac"]["segments"]} == {0}
    assert query("SELECT count(*) AS n FROM {words}", dest)[0]["n"] == 0


def test_the_stop_time_leaves_the_rest_for_the_next_run(
    night: Callable[..., Night], samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dest = tmp_path / "calls", tmp_path / "tables"
    put(source, samples / "en_000.flac", *(f"{number}.flac" for number in range(20)))
    asked: list[datetime | None] = []

    def almost_over(*given: Any, **named: Any) -> NightOptions:
        options = night_options.night_options(*given, **named)
        asked.append(options.stop_at)
        return replace(options, stop_at=datetime.now(UTC))

    monkeypatch.setattr("tasks.whole_run.night_options", almost_over)
    stopped = night(source, dest, backend="fake", stop_at="04:30")
    (stop_at,) = asked
    assert stop_at is not None
    assert stop_at.astimezone().strftime("%H:%M") == "04:30"
    assert stopped.state.is_completed(), "a night that is over in time is no failure"
    assert (stopped.summary.planned, stopped.summary.landed, stopped.summary.not_started) == (20, 0, 20)
    monkeypatch.undo()
    rest = night(source, dest, backend="fake")
    assert (rest.summary.planned, rest.summary.landed) == (20, 20)


@pytest.mark.parametrize("backend", ["faster-whisper", "transformers", "openai-whisper"])
def test_every_backend(night: Callable[..., Night], samples: Path, tmp_path: Path, backend: str) -> None:
    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    for name in ("en_000.flac", "ko_000.flac", "silence.flac"):
        shutil.copy(samples / name, source)
    done = night(source, dest, backend=backend, timestamps="word")
    assert done.state.is_completed()
    found = rows(dest)
    assert {name: (row["text"], row["language"]) for name, row in found.items()} == {
        "en_000.flac": ("how can i help you next week", "en"),
        "ko_000.flac": ("가격은 십 원입니다", "ko"),
        "silence.flac": ("", None),
    }
    spoken = [row for row in found.values() if row["text"]]
    assert {(row["backend"], row["compute_type"]) for row in spoken} == {(backend, spoken[0]["compute_type"])}
    assert spoken[0]["compute_type"] != "auto"
    assert query("SELECT count(*) AS n FROM {words}", dest)[0]["n"] >= 10
