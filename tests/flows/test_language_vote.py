"""A long file is spread over task batches, and speaks one language all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tasks import night_options
from tasks.night_terms import NightOptions
from tasks.task_batches import BatchBounds
from tests.flows.conftest import Night, advanced, task_runs_of
from tests.flows.tables import rows


def test_a_korean_call_with_an_english_greeting_is_korean_throughout(
    night: Callable[..., Night], samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small_batches(*given: Any, **named: Any) -> NightOptions:
        options = night_options.night_options(*given, **named)
        return replace(options, batches=BatchBounds(target_s=0.001, least_windows=4, most_windows=8))

    monkeypatch.setattr("tasks.whole_run.night_options", small_batches)
    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    greeting, rate_hz = soundfile.read(samples / "en_long0.flac", dtype="float32")
    call, _ = soundfile.read(samples / "ko_long1.flac", dtype="float32")
    # To the fake backend, what is shifted upwards is Korean.
    soundfile.write(source / "call.flac", np.concatenate([greeting, call * 0.9 + 0.03]), rate_hz)
    soundfile.write(source / "greeting.flac", greeting, rate_hz)

    done = night(source, dest, backend="fake", advanced=advanced(max_chunk_s=3.0, max_gap_s=0.3))
    found = rows(dest)
    assert {name: row["language"] for name, row in found.items()} == {"call.flac": "ko", "greeting.flac": "en"}
    heard = [run for run in task_runs_of(done.flow_run_id) if run.name.startswith("transcribe call.flac")]
    assert len(heard) >= 2, "the call was one task batch"
    said = found["call.flac"]["segments"]
    assert all(segment["text"].strip().startswith("ko ") for segment in said), "a chunk voted for itself"
    assert not any(segment["text"].strip().startswith("ko ") for segment in found["greeting.flac"]["segments"])
    starts_s = [segment["start_s"] for segment in said]
    assert starts_s == sorted(starts_s)
    assert starts_s[0] < len(greeting) / rate_hz < 60.0 < starts_s[-1]
