"""`WhisperSTT` as a caller meets it: which backend loads, what a result is, what is said when it is not there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import stt_engine
from stt_engine import WhisperSTT
from stt_engine.devices import choose_devices
from stt_engine.errors import DeviceUnavailable, NoBackendLoaded, UnknownBackend, UsageError
from stt_engine.loading import AUTO_ORDER
from stt_engine.types import Transcript


def blocked(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these backends' packages were missing."""
    real = stt_engine.loading.importlib.import_module

    def import_module(name: str, package: str | None = None) -> object:
        if any(name == stt_engine.loading.BACKEND_MODULES[blocked] for blocked in names):
            raise ImportError(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(stt_engine.loading.importlib, "import_module", import_module)


def test_the_first_that_loads_is_taken_and_says_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stt = WhisperSTT("fixture", device="cpu")
    assert (type(stt.backend).__name__, stt.backend.name, stt.backends) == (
        "FasterWhisperBackend", "faster-whisper", ("faster-whisper",),
    )  # fmt: skip
    blocked(monkeypatch, "faster-whisper")
    second = WhisperSTT("fixture", device="cpu")
    assert type(second.backend).__name__ == "TransformersBackend"
    assert [missing.name for missing in second.not_loaded] == ["faster-whisper"]


def test_none_is_a_runtime_error_that_says_why_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked(monkeypatch, *AUTO_ORDER)
    with pytest.raises(RuntimeError) as caught:
        WhisperSTT("fixture", device="cpu")
    assert isinstance(caught.value, NoBackendLoaded)
    for name in AUTO_ORDER:
        assert f"  {name}: backend {name}: No module named" in str(caught.value)


@pytest.mark.skipif(choose_devices("auto") != ("cpu",), reason="a CUDA device is here")
def test_a_device_that_none_has_is_said_for_each() -> None:
    with pytest.raises(RuntimeError) as caught:
        WhisperSTT("fixture", device="cuda")
    assert all(f"  {name}: " in str(caught.value) for name in AUTO_ORDER)
    with pytest.raises(DeviceUnavailable):
        WhisperSTT("fixture", device="cuda", backend="faster-whisper")


def test_no_backend_at_all_is_no_wish() -> None:
    with pytest.raises(UsageError, match="name at least one of faster-whisper"):
        WhisperSTT("fixture", device="cpu", backends=[])


def test_several_are_chosen_from_for_each_file(samples: Path) -> None:
    stt = WhisperSTT("fixture", device="cpu", backends=["transformers", "faster-whisper"])
    assert stt.backends == ("transformers", "faster-whisper")
    said = {name: stt.transcribe(samples / "en_000.flac", backend=name) for name in (None, *stt.backends)}
    assert [found.backend for found in said.values()] == ["transformers", "transformers", "faster-whisper"]
    assert {found.text for found in said.values()} == {"how can i help you next week"}
    with pytest.raises(
        UnknownBackend, match=r"'openai-whisper' is not loaded: loaded are transformers, faster-whisper"
    ):
        stt.transcribe(samples / "en_000.flac", backend="openai-whisper")


def test_those_that_do_not_load_are_passed_over_and_their_reason_is_kept(
    samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked(monkeypatch, "transformers")
    stt = WhisperSTT("fixture", device="cpu", backends=["transformers", "faster-whisper"])
    assert stt.backends == ("faster-whisper",)
    with pytest.raises(UnknownBackend, match="transformers: backend transformers: No module named"):
        stt.transcribe(samples / "en_000.flac", backend="transformers")


def test_a_result_is_frozen_and_reads_as_a_mapping(samples: Path) -> None:
    stt = WhisperSTT("fixture", device="cpu")
    result = stt.transcribe(samples / "ko_003.flac", language="ko")
    assert isinstance(result, Transcript)
    assert (result.get("text"), result["language"]) == ("파란 화면이 고장났습니다", "ko")
    assert result.get("duration") == result["duration_s"] == pytest.approx(3.3, abs=0.1)
    assert result.get("nothing") is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.text = "another"  # type: ignore[misc]
    row = {"file": "ko_003.flac", **{name: result[name] for name in ("text", "language", "duration")}}
    assert "파란" in json.dumps(row, ensure_ascii=False)
