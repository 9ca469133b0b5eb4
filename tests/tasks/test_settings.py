"""Options: where they come from, what is refused, and which of them make an archive new."""

from __future__ import annotations

import inspect
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.transcribe_new_audio import transcribe_new_audio
from stt_engine.chunking import ChunkOptions
from stt_engine.errors import UsageError
from stt_engine.split import SplitOptions
from stt_engine.types import TranscribeOptions
from tasks.labels import LabelPattern
from tasks.prepare import options_hash, split_options, transcribe_options
from tasks.settings import AdvancedSettings, RunSettings

PLACES = {"source": "calls", "dest": "tables"}


def test_a_given_option_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RunSettings(**PLACES).language == "auto"
    monkeypatch.setenv("NIGHTSCRIBE_LANGUAGE", "ko")
    monkeypatch.setenv("NIGHTSCRIBE_ADVANCED__BEAM_SIZE", "5")
    assert RunSettings(**PLACES).language == "ko"
    assert RunSettings(**PLACES).advanced.beam_size == 5
    assert RunSettings(**PLACES, language="en").language == "en"


def test_the_flow_has_every_option_with_the_same_default() -> None:
    parameters = inspect.signature(transcribe_new_audio.fn).parameters
    assert set(parameters) == set(RunSettings.model_fields)
    for name, field in RunSettings.model_fields.items():
        if field.is_required():
            continue
        default = field.get_default(call_default_factory=True)
        given = parameters[name].default
        assert (given or None) == (default or None), name


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"gpu_workers": 0},
        {"stop_at": "25:00"},
        {"stop_at": "6:30"},
        {"device": "tpu"},
        {"timestamps": "char"},
        {"advanced": {"max_chunk_s": 31}},
        {"advanced": {"no_such": 1}},
        {"no_such": 1},
        {"modified_since": "2026-02-01", "modified_before": "2026-01-01"},
        {"modified_since": "yesterday"},
        {"modified_since": "2026"},
        {"modified_since": 20261123},
    ],
)
def test_what_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RunSettings(**PLACES, **wrong)


def test_every_option_is_described() -> None:
    for fields in (RunSettings.model_fields, AdvancedSettings.model_fields):
        for name, field in fields.items():
            assert field.description, name


@given(st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)), st.integers(0, 23), st.integers(0, 59))
def test_stop_time_is_the_next_moment_the_clock_shows_it(moment: datetime, hour: int, minute: int) -> None:
    now = moment.replace(tzinfo=UTC)
    stop = RunSettings(**PLACES, stop_at=f"{hour:02}:{minute:02}").stop_time(now)
    assert stop is not None
    assert now < stop <= now + timedelta(hours=25)  # a day of 25 hours exists
    local = stop.astimezone()
    assert (local.hour, local.minute, local.second) == (hour, minute, 0)


def test_labels_are_the_named_groups() -> None:
    labels = LabelPattern(r"(?P<agent>[^/]+)/(?P<call_id>[^/.]+)(?P<part>-\d)?\.")
    assert labels.of("kim/0815.wav") == {"agent": "kim", "call_id": "0815"}
    assert labels.of("0815.wav") == {}
    for wrong in ("(", r"\d+"):
        with pytest.raises(UsageError, match="key-pattern"):
            LabelPattern(wrong)


def hash_of(split: SplitOptions | None = None, transcribe: TranscribeOptions | None = None, weights: str = "w") -> str:
    return options_hash(weights, split or SplitOptions(), transcribe or TranscribeOptions())


def test_the_options_hash_follows_what_changes_text_and_nothing_else() -> None:
    usual = hash_of()
    settings = RunSettings(**PLACES, backend="transformers", device="cpu", compute_type="int8", cpu_workers=7)
    assert hash_of(split_options(settings), transcribe_options(settings)) == usual
    changed = {
        hash_of(weights="others"),
        hash_of(transcribe=TranscribeOptions(language="ko")),
        hash_of(transcribe=TranscribeOptions(task="translate")),
        hash_of(transcribe=TranscribeOptions(timestamps="word")),
        hash_of(transcribe=TranscribeOptions(hotwords="refund")),
        hash_of(split=SplitOptions(channels="split")),
        hash_of(split=SplitOptions(chunks=ChunkOptions(max_chunk_s=15))),
    }
    assert len(changed | {usual}) == 8
    assert hash_of(split=replace(SplitOptions(), limits=replace(SplitOptions().limits, max_channels=2))) == usual


def test_the_hash_of_the_defaults_does_not_move() -> None:
    """Were it another one in the next version, every archive would be transcribed again."""
    assert hash_of() == "a58c55d9ed1977b1"


def test_a_list_of_patterns_with_a_slip_in_it_is_no_glob(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSCRIBE_PATTERN", '["*.flac"')
    with pytest.raises(ValidationError, match="neither a glob nor a JSON list"):
        RunSettings(source="a", dest="b")
    monkeypatch.setenv("NIGHTSCRIBE_PATTERN", "[ab]*.wav")
    assert RunSettings(source="a", dest="b").pattern == ("[ab]*.wav",)
