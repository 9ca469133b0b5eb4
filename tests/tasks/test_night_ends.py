"""Nights that end early: cancelled, out of time, or stopped by what is true for every file."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stt_engine.errors import (
    BackendUnavailable,
    DestinationRefused,
    NightscribeError,
    NoBackendLoaded,
    StorageUnavailable,
)
from tasks.night_terms import FileFinished
from tests.tasks.played_night import Played, names
from tests.tasks.scripted_crew import Recording, ScriptedCrew


def test_what_is_true_for_every_file_ends_the_night_after_landing_what_is_finished(spool: Path) -> None:
    for error in (NoBackendLoaded("none"), BackendUnavailable("lost its device")):
        recordings = [Recording(name, n_chunks=8) for name in names(9)]
        played = Played(recordings, spool, batch_size=9)
        count = 0

        def after_three(finished: FileFinished, played: Played = played, error: NightscribeError = error) -> None:
            nonlocal count
            count += 1
            if count == 3:
                played.crew.fatal = error

        played.night._on_file = after_three
        with pytest.raises(type(error)):
            played.run()
        assert 3 <= len(played.crew.landed) < 9


def test_a_split_that_cannot_be_had_ends_the_night_too(spool: Path) -> None:
    recordings = [Recording("a.wav", split_errors=(BackendUnavailable("5 cpu workers in a row ended"),), hopeless=True)]
    with pytest.raises(BackendUnavailable):
        Played(recordings, spool).run()


def test_cancelling_lands_complete_batches_and_nothing_else(spool: Path) -> None:
    played: Played
    played = Played(
        [Recording(name, n_chunks=4) for name in names(12)],
        spool,
        batch_size=2,
        cancelled=lambda: len(played.finished) >= 5,
    )
    outcome = played.run()
    assert outcome.cancelled
    assert 2 <= len(played.crew.landed) < 12
    landed_by_batch = Counter(int(key[:3]) // 2 for key in played.crew.landed)
    assert set(landed_by_batch.values()) == {2}, "half a batch was landed"
    assert outcome.not_started == 12 - outcome.landed


class Clock(datetime):
    """One minute later at every look."""

    looks = 0

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        cls.looks += 1
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=cls.looks)


def test_the_stop_time_takes_up_no_new_work_and_lands_what_is_done(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "looks", 0)
    monkeypatch.setattr("tasks.night.datetime", Clock)
    late = (StorageUnavailable("x"),) * 9
    recordings = [Recording(name, n_chunks=4, split_errors=late if name == "001.wav" else ()) for name in names(40)]
    stop_at = datetime(2026, 1, 1, 0, 12, tzinfo=UTC)
    played = Played(recordings, spool, batch_size=40, stop_at=stop_at)
    outcome = played.run()
    assert not outcome.cancelled
    assert 0 < outcome.landed < 30
    assert outcome.landed == len(played.crew.landed)
    assert outcome.not_started == 40 - outcome.landed - len(outcome.failures_left)
    assert len(played.crew.splits) <= 12 + 4, "work was taken up after the stop time"

    past = Played(recordings, spool, stop_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert (past.run().not_started, past.crew.splits, past.crew.landed) == (40, [], {})


def test_a_part_that_cannot_be_written_leaves_its_files_for_the_next_run(spool: Path) -> None:
    def arrange(crew: ScriptedCrew) -> None:
        crew.land_errors["batch2"] = StorageUnavailable("down")

    played = Played([Recording(name) for name in names(6)], spool, batch_size=2, arrange=arrange)
    outcome = played.run()
    assert outcome.unsettled == ("batch2",)
    assert sorted(failure.file.key for failure in outcome.failures_left) == ["002.wav", "003.wav"]
    assert outcome.landed == 4


def test_a_dest_that_refuses_a_part_ends_the_night(spool: Path) -> None:
    def arrange(crew: ScriptedCrew) -> None:
        crew.land_errors |= {f"batch{number}": DestinationRefused("read-only") for number in range(2, 40, 2)}

    played = Played([Recording(name) for name in names(40)], spool, batch_size=2, arrange=arrange)
    with pytest.raises(DestinationRefused):
        played.run()
    assert set(played.crew.landed) <= {"000.wav", "001.wav"}
    assert len(played.crew.splits) < 40, "work was taken up that could not be landed"
