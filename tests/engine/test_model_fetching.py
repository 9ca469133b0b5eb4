"""A model from the Hub: a small one of the tests' own, in processes that meet it for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stt_engine import models
from stt_engine.models import Form
from tests.engine.small_hub import SmallHub, python_process, running_hub


@pytest.fixture
def hub(plain_model: Path) -> Iterator[SmallHub]:
    with running_hub({"openai/whisper-tiny": plain_model, "some-org/telephony": plain_model}) as server:
        yield server


def test_a_name_is_fetched_once_and_then_works_without_the_hub(plain_model: Path, tmp_path: Path) -> None:
    resolve = "print(models.resolve('tiny'))"
    with running_hub({"openai/whisper-tiny": plain_model}) as hub:
        first = python_process(resolve, tmp_path, HF_ENDPOINT=hub.endpoint)
        assert first.returncode == 0, first.stderr
        fetched = Path(first.stdout.strip())
        assert (fetched / "model.safetensors").read_bytes() == (plain_model / "model.safetensors").read_bytes()
        assert models.read_layout(fetched).forms == {Form.HUGGING_FACE}
        assert not (fetched / ".cache").exists()
        asked = len(hub.requests)
        assert python_process(resolve, tmp_path, HF_ENDPOINT=hub.endpoint).stdout == first.stdout
        assert len(hub.requests) == asked, "what is in the cache needs no question to the Hub"
        gone = hub.endpoint
    assert python_process(resolve, tmp_path, HF_ENDPOINT=gone).stdout == first.stdout


def test_offline_never_touches_the_network(hub: SmallHub, tmp_path: Path) -> None:
    code = (
        "for name in ('tiny', 'some-org/telephony'):\n"
        "    try: models.resolve(name)\n"
        "    except ModelNotFound as error: print(error)\n"
        "try: models.fetch('tiny')\n"
        "except UsageError as error: print(error)\n"
    )
    run = python_process(code, tmp_path, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="1")
    assert run.returncode == 0, run.stderr
    first, second, third = run.stdout.splitlines()
    assert "openai/whisper-tiny" in first and "nightscribe models fetch tiny" in first
    assert "nightscribe models fetch some-org/telephony" in second
    assert "HF_HUB_OFFLINE" in third
    assert hub.requests == []


def test_fetch_goes_on_after_an_interruption(hub: SmallHub, tmp_path: Path) -> None:
    hub.status = 503
    refused = python_process("models.resolve('tiny')", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert "StorageUnavailable" in refused.stderr.splitlines()[-1]
    assert "503" in refused.stderr.splitlines()[-1]
    hub.status, hub.cut_short = 200, {"model.safetensors"}
    run = python_process("print(models.resolve('tiny'))", tmp_path, HF_ENDPOINT=hub.endpoint)
    if run.returncode:  # whether the client itself goes on after a broken connection is its own affair
        run = python_process("print(models.resolve('tiny'))", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert run.returncode == 0, run.stderr
    assert models.fingerprint(run.stdout.strip()) == models.fingerprint(hub.repos["openai/whisper-tiny"])
    assert hub.cut_short == set(), "the transfer did break"


def test_fetch_into_a_directory_completes_it_and_reports_how_far_it_is(hub: SmallHub, tmp_path: Path) -> None:
    carried = tmp_path / "carried"
    carried.mkdir()
    (carried / "generation_config.json").write_text("{}")
    code = (
        "seen = []\n"
        f"print(models.fetch('some-org/telephony', {str(carried)!r}, report=seen.append))\n"
        "last = seen[-1]\n"
        "print(last.doing, last.done_bytes == last.total_bytes)\n"
    )
    run = python_process(code, tmp_path / "cache", HF_ENDPOINT=hub.endpoint)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [str(carried), "fetching some-org/telephony: model.safetensors True"]
    assert (carried / "generation_config.json").read_text() == "{}", "what was there stays as it was"
    assert models.resolve(carried) == carried
    assert run.stderr == "", "no progress bar of another's"


def test_a_repository_that_is_not_there(hub: SmallHub, tmp_path: Path) -> None:
    run = python_process("models.resolve('openai/whisper-smal')", tmp_path, HF_ENDPOINT=hub.endpoint)
    said = run.stderr.splitlines()[-1]
    assert "ModelNotFound" in said and "Did you mean small" in said


def test_a_repository_without_weights(tmp_path: Path, spoilt_model: Path) -> None:
    (spoilt_model / "model.safetensors").unlink()
    with running_hub({"some-org/empty": spoilt_model}) as hub:
        run = python_process("models.resolve('some-org/empty')", tmp_path, HF_ENDPOINT=hub.endpoint)
    assert "ModelFormatError" in run.stderr.splitlines()[-1]
    assert "holds no weights" in run.stderr.splitlines()[-1]
