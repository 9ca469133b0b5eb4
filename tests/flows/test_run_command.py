"""`nightscribe run` as a shell or a cron job sees it: exit status, stdout, stderr, environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import ROOT, CommandLine
from tests.flows.tables import rows

KEYS = (
    "run_id",
    "discovered",
    "already_done",
    "planned",
    "landed",
    "failed_terminal",
    "failed_retryable",
    "audio_seconds",
    "wall_seconds",
    "rtfx",
    "dest",
)

REFUSED: dict[str, tuple[list[str], str]] = {
    "missing source": (["{missing}", "{dest}"], "{missing}"),
    "source of an unknown protocol": (["gopher://calls", "{dest}"], "gopher://calls"),
    "destination is a file": (["{source}", "{file}"], "{file}"),
    "destination cannot be made": (["{source}", "/proc/tables"], "/proc/tables"),
    "destination without exclusive create": (["{source}", "memory://tables"], "memory://tables"),
    "unknown model": (["{source}", "{dest}", "--model", "colossal"], "colossal"),
    "folder without a model": (["{source}", "{dest}", "--model", "{source}"], "{source}"),
    "unknown language": (["{source}", "{dest}", "--language", "klingon"], "klingon"),
    "unknown backend": (["{source}", "{dest}", "--backend", "kaldi"], "--backend"),
    "unknown task": (["{source}", "{dest}", "--task", "sing"], "--task"),
    "unknown device": (["{source}", "{dest}", "--device", "gpu"], "--device"),
    "a device that is not there": (["{source}", "{dest}", "--device", "cuda:99"], "cuda:99"),
    "unknown timestamps": (["{source}", "{dest}", "--timestamps", "syllable"], "--timestamps"),
    "unknown channels": (["{source}", "{dest}", "--channels", "left"], "--channels"),
    "no time of day": (["{source}", "{dest}", "--stop-at", "25:00"], "--stop-at"),
    "no date": (["{source}", "{dest}", "--modified-since", "yesterday"], "--modified-since"),
    "dates the wrong way round": (
        ["{source}", "{dest}", "--modified-since", "2026-02-01", "--modified-before", "2026-01-01"],
        "modified_since",
    ),
    "no regular expression": (["{source}", "{dest}", "--key-pattern", "(?P<a"], "--key-pattern"),
    "a regular expression without names": (["{source}", "{dest}", "--key-pattern", "(.*)"], "--key-pattern"),
    "no files at all": (["{source}", "{dest}", "--limit", "0"], "--limit"),
    "beams where there are none": (
        ["{source}", "{dest}", "--model", "fixture", "--backend", "transformers", "--beam-size", "5"],
        "beam_size",
    ),
    "beams with a compute type that only others have": (
        ["{source}", "{dest}", "--device", "cpu", "--compute-type", "float16", "--beam-size", "5"],
        "beam_size=5",
    ),
    "a model in another backend's form": (
        ["{source}", "{dest}", "--model", "{ct2}", "--backend", "transformers"],
        "{ct2} is not in Hugging Face format",
    ),
    "an archive that is not there": (["zip://a.wav::{missing}.zip", "{dest}"], "{missing}.zip"),
    "an empty pattern": (["{source}", "{dest}", "--pattern", ""], "an empty pattern matches nothing"),
    "a spool that cannot be made": (["{source}", "{dest}", "--model", "fixture", "--spool", "/proc/spool"], "--spool"),
}

_REFUSALS = """
import contextlib, io, json, sys
from flows.cli import main
told = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["nightscribe", "run", *arguments]
    status = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as left:
            status = left.code
    told.append([status, out.getvalue(), err.getvalue(), "prefect" in sys.modules])
print(json.dumps(told))
"""
"""Every refusal in one process: what takes seconds is starting Python, and none of them may start more than that."""


def test_unusable_arguments_are_refused_in_one_line_before_anything_starts(
    tmp_path: Path, samples: Path, fixture_model: Path
) -> None:
    source, dest, file = tmp_path / "calls", tmp_path / "tables", tmp_path / "file"
    source.mkdir()
    shutil.copy(samples / "en_000.flac", source)
    file.write_text("not a folder")
    ct2 = fixture_model / "ct2"
    places = {"source": source, "dest": dest, "file": file, "missing": tmp_path / "nowhere", "ct2": ct2}

    def filled(text: str) -> str:
        return text if "(?P" in text else text.format(**places)

    asked = [[*map(filled, arguments)] for arguments, _ in REFUSED.values()]
    for arguments in asked:
        if "--model" not in arguments:
            arguments += ["--model", "fixture"]
    answered = subprocess.run(
        [sys.executable, "-c", _REFUSALS, json.dumps(asked)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    told = json.loads(answered.stdout)
    for (name, (_, named)), (status, out, err, prefect_started) in zip(REFUSED.items(), told, strict=True):
        assert (status, out, prefect_started) == (2, "", False), (name, err)
        (line,) = err.splitlines()
        assert line.startswith("nightscribe: "), name
        assert filled(named) in line, (name, line)
    assert not list(tmp_path.rglob("*.parquet"))
    assert not list(tmp_path.rglob("_plans"))


def test_arguments_that_the_parser_refuses(command_line: CommandLine) -> None:
    assert command_line("run").status == 2
    assert command_line("run", "a", "b", "--no-such-option").status == 2


def test_done_then_nothing_new(command_line: CommandLine, samples: Path, tmp_path: Path) -> None:
    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    shutil.copy(samples / "en_000.flac", source)
    shutil.copy(samples / "ko_000.flac", source)
    (source / "letter.wav").write_text("dear customer")

    planned = command_line("run", source, dest, "--dry-run", NIGHTSCRIBE_MODEL="fixture")
    assert planned.status == 0
    assert "en_000.flac" in planned.out
    assert "3 would be done" in planned.err
    assert not dest.exists(), "a dry run wrote something"

    first = command_line("run", source, dest, "--model", "fixture", "--device", "cpu", "--json")
    assert first.status == 0, first.err
    answer = first.json
    assert tuple(answer)[: len(KEYS)] == KEYS
    assert len(first.out.splitlines()) == 1
    assert {name: answer[name] for name in KEYS[1:7]} == {
        "discovered": 3,
        "already_done": 0,
        "planned": 3,
        "landed": 2,
        "failed_terminal": 1,
        "failed_retryable": 0,
    }
    assert answer["dest"] == str(dest)
    assert answer["audio_seconds"] == pytest.approx(sum(r["duration_s"] or 0 for r in rows(dest).values()), abs=0.01)
    assert answer["rtfx"] == pytest.approx(answer["audio_seconds"] / answer["wall_seconds"], abs=0.02)
    assert {row["run_id"] for row in rows(dest).values()} == {answer["run_id"]}
    assert "2 of 3 files landed, 1 failed for good" in first.err
    assert f"nightscribe failures {dest}" in first.err
    assert "how can i help" not in first.err, "a transcript is no log line"

    estimated = command_line("run", source, dest, "--model", "fixture", "--force", "--dry-run", "--json").json
    assert (estimated["planned"], estimated["already_done"]) == (3, 0)
    assert estimated["estimated_audio_hours"] == pytest.approx(answer["audio_seconds"] / 3600, rel=0.3)
    assert estimated["estimated_run_hours"] > 0

    began_s = time.monotonic()
    del command_line.environment["PREFECT_API_URL"]  # with none to show it to, no server is started either
    second = command_line("run", source, dest, "--model", "fixture", "--json")
    took_s = time.monotonic() - began_s
    assert second.status == 0
    assert (second.json["planned"], second.json["already_done"], second.json["landed"]) == (0, 3, 0)
    assert tuple(second.json)[: len(KEYS)] == KEYS
    assert "nothing is new: 3 files found, 3 done already" in second.err
    assert took_s < 12.0, "the second run is to be quick"


def test_three_when_something_is_left_for_the_next_run(
    command_line: CommandLine, samples: Path, tmp_path: Path
) -> None:
    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    shutil.copy(samples / "en_000.flac", source)
    usual: tuple[Any, ...] = ("run", source, dest, "--model", "fixture", "--backend", "fake", "--json")
    left = command_line(*usual, "--split-deadline-s", "0.0001", NIGHTSCRIBE_ADVANCED__RETRIES="0")
    assert left.status == 3, left.err
    assert (left.json["landed"], left.json["failed_retryable"]) == (0, 1)
    assert not list(dest.glob("transcripts/*/*.parquet")), "a retryable failure has no row"

    listed = command_line("failures", dest, "--json")
    (failure,) = map(json.loads, listed.out.splitlines())
    assert (failure["error_type"], failure["retryable"]) == ("DeadlineExceeded", True)
    assert "en_000.flac" in failure["message"]

    assert command_line(*usual).json["landed"] == 1
    assert command_line("failures", dest).out.startswith("no failures")


def test_a_server_that_does_not_answer_is_said_in_one_line(
    command_line: CommandLine, samples: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "tables"
    said = command_line("run", samples, dest, "--model", "fixture", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert said.status == 2
    (line,) = said.err.splitlines()
    assert "PREFECT_API_URL http://127.0.0.1:9/api" in line and "prefect server start" in line
    assert not (dest / "_plans").exists()


def test_a_model_that_cannot_be_loaded_is_said_once(
    command_line: CommandLine, samples: Path, fixture_model: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(fixture_model / "ct2", damaged)
    with (damaged / "model.bin").open("r+b") as weights:
        weights.truncate(3_000_000)
    said = command_line("run", samples, tmp_path / "tables", "--model", damaged, "--backend", "faster-whisper")
    assert said.status == 2
    (line,) = [line for line in said.err.splitlines() if str(damaged) in line]
    assert line.startswith("nightscribe: ")
    assert "Traceback" not in said.err and "No more gpu workers" not in said.err


def test_every_option_has_its_environment_variable() -> None:
    from typer.main import get_command

    from flows.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name in ("run", "transcribe", "failures", "doctor", "demo"):
        for parameter in commands[name].params:
            if parameter.name in ("help", "files"):
                continue
            variables = parameter.envvar or f"{parameter.help}"
            assert "NIGHTSCRIBE_" in str(variables), f"{name} {parameter.name}"


def test_every_option_is_an_environment_variable_too(command_line: CommandLine, samples: Path, tmp_path: Path) -> None:
    variables = {
        "NIGHTSCRIBE_SOURCE": str(samples),
        "NIGHTSCRIBE_DEST": str(tmp_path / "tables"),
        "NIGHTSCRIBE_MODEL": "fixture",
        "NIGHTSCRIBE_DRY_RUN": "1",
        "NIGHTSCRIBE_JSON": "1",
    }
    one = command_line("run", NIGHTSCRIBE_PATTERN="ko_00*", NIGHTSCRIBE_LIMIT="7", **variables)
    assert one.json["planned"] == 7
    several = command_line("run", NIGHTSCRIBE_PATTERN='["ko_000*", "en_000*"]', **variables)
    assert several.json["planned"] == 2
    stronger = command_line("run", "--pattern", "noise*", NIGHTSCRIBE_PATTERN="ko_00*", **variables)
    assert stronger.json["planned"] == 1
    for variable in ("NIGHTSCRIBE_ADVANCED__BEAM_SIZE", "NIGHTSCRIBE_BEAM_SIZE"):
        for value in ("many", "99"):
            wrong = command_line("run", **variables, **{variable: value})
            assert wrong.status == 2
            assert "beam-size" in wrong.err
