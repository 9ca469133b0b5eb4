"""The README's commands, run: their output is compared line by line, figures aside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Shown:
    command: str
    output: tuple[str, ...]


def shown_commands() -> list[Shown]:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    shown = []
    for block in blocks:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = part.splitlines()
            shown.append(Shown(command, tuple(line.rstrip() for line in output)))
    return shown


def without_figures(line: str) -> str:
    """Times, speeds, run ids and messages in quotes differ from run to run."""
    line = re.sub(r'"(message|what_to_do|version|uri)": "(?:[^"\\]|\\.)*"', r'"\1": "..."', line)
    line = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{6}", "RUN", line)
    return re.sub(r"\d+([.:]\d+)*", "#", line).rstrip()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "flows" / "demo_recordings", folder / "recordings")
    broken = folder / "with-a-broken-one"
    broken.mkdir()
    shutil.copy(ROOT / "flows" / "demo_recordings" / "en_000.flac", broken)
    (broken / "notes.wav").write_text("this is not a recording")
    return folder


def test_readme_shows_commands() -> None:
    assert len(shown_commands()) >= 6


@pytest.mark.timeout(300)
def test_readme_commands_print_what_it_says(workplace: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "COLUMNS": "80"}
    environment.pop("PREFECT_API_URL", None)
    for shown in shown_commands():
        arguments = shown.command.split()
        assert arguments[0] == "nightscribe"
        done = subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; main()", *arguments[1:]],
            cwd=workplace,
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{shown.command}: {done.stderr}"
        printed = [without_figures(line) for line in (done.stdout + "\n" + done.stderr).splitlines()]
        for line in shown.output:
            if line.strip():
                assert without_figures(line) in printed, f"{shown.command} does not print: {line}\n{printed}"
