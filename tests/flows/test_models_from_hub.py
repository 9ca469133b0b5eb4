"""A model by name, from the command line: fetched once from a Hub, then without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.small_hub import running_hub
from tests.long_form import long

ROOT = Path(__file__).resolve().parents[2]
REPO = "call-centre/toy-whisper"


def nightscribe(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.timeout(300)
def test_run_fetches_a_missing_name_itself_once(samples: Path, fixture_model: Path, tmp_path: Path) -> None:
    mine = {"NIGHTSCRIBE_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}
    said = nightscribe("run", samples, tmp_path / "tables", "--model", REPO, "--dry-run", **mine, HF_HUB_OFFLINE="1")
    assert said.returncode == 2
    assert REPO in said.stderr
    assert "models fetch" in said.stderr

    with running_hub({REPO: fixture_model / "ct2"}) as hub:
        online = {**mine, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint}
        said = nightscribe("run", samples, tmp_path / "tables", "--model", REPO, "--dry-run", "--json", **online)
        assert said.returncode == 0, said.stderr
        assert hub.requests
        hub.requests.clear()
        said = nightscribe("transcribe", samples / "en_000.flac", "--model", REPO, **online, NIGHTSCRIBE_LANGUAGE="en")
        assert said.stdout == "how can i help you next week\n", said.stderr
        assert not hub.requests, "a model in the cache needs no Hub"

    said = nightscribe("transcribe", samples / "ko_000.flac", "--model", REPO, **mine, HF_HUB_OFFLINE="1")
    assert said.stdout == "가격은 십 원입니다\n", said.stderr
    listed = nightscribe("models", "list", **mine, COLUMNS="200")
    assert REPO in listed.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "backends", [("faster-whisper",), pytest.param(("transformers", "openai-whisper"), marks=long)], ids=" ".join
)
def test_fetch_and_convert_for_a_machine_without_a_network(
    samples: Path, fixture_model: Path, tmp_path: Path, backends: tuple[str, ...]
) -> None:
    mine = {"NIGHTSCRIBE_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in fixture_model.iterdir():
        if file.is_file():
            (plain / file.name).write_bytes(file.read_bytes())
    with running_hub({REPO: plain}) as hub:
        fetched = nightscribe(
            "models", "fetch", REPO, tmp_path / "carried", **mine, HF_HUB_OFFLINE="0", HF_ENDPOINT=hub.endpoint
        )
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout == f"{tmp_path / 'carried'}\n"
    converted = nightscribe("models", "convert", tmp_path / "carried", **mine)
    assert converted.returncode == 0, converted.stderr
    assert (tmp_path / "carried" / "ct2" / "model.bin").exists()
    for backend in backends:
        said = nightscribe(
            "transcribe", samples / "en_000.flac", "--model", tmp_path / "carried", "--backend", backend, **mine
        )
        assert said.stdout == "how can i help you next week\n", said.stderr
