"""The commands beside `run`, called in this process as a shell would call them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.cli import main


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


@dataclass
class Shell:
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Said:
        self.patch.setattr(sys, "argv", ["nightscribe", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = self.capture.readouterr()
        return Said(int(left.value.code or 0), said.out, said.err)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(monkeypatch, capsys)


def test_transcribe_prints_text(shell: Shell, samples: Path) -> None:
    said = shell("transcribe", samples / "en_000.flac", "--model", "fixture", "--device", "cpu")
    assert (said.status, said.out) == (0, "how can i help you next week\n")


@pytest.mark.parametrize("suffix", ["txt", "json", "srt", "vtt", "tsv"])
def test_transcribe_writes_a_file_for_each_in_every_format(
    shell: Shell, samples: Path, tmp_path: Path, suffix: str
) -> None:
    said = shell(
        "transcribe", samples / "en_000.flac", samples / "ko_000.flac", "--model", "fixture",
        "--format", suffix, "--output-dir", tmp_path / "new",
    )  # fmt: skip
    assert said.status == 0
    assert said.out == ""
    english, korean = ((tmp_path / "new" / f"{name}.{suffix}").read_text() for name in ("en_000", "ko_000"))
    assert "how can i help you next week" in english
    assert "가격은 십 원입니다" in korean


def test_transcribe_with_words_and_channels(shell: Shell, recordings: Path) -> None:
    said = shell(
        "transcribe", recordings / "stereo_diarization.wav", "--model", "fixture",
        "--format", "json", "--timestamps", "word", "--channels", "split",
    )  # fmt: skip
    heard = json.loads(said.out)
    assert {segment["channel"] for segment in heard["segments"]} == {0, 1}
    assert all(segment["words"] for segment in heard["segments"])
    assert heard["covered_s"] <= heard["speech_s"] + 0.01


def test_one_bad_file_does_not_stop_the_others(shell: Shell, samples: Path, tmp_path: Path) -> None:
    bad = tmp_path / "letter.wav"
    bad.write_text("dear customer")
    said = shell("transcribe", bad, samples / "en_000.flac", "--model", "fixture")
    assert said.status == 2
    assert "letter.wav" in said.err
    assert "how can i help you next week" in said.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", "fixture", "--format", "docx"], "docx"),
        (["--model", "fixture", "--language", "xx"], "xx"),
        (["--model", "fixture", "--task", "sing"], "sing"),
        (["--model", "fixture", "--timestamps", "char"], "char"),
        (["--model", "fixture", "--channels", "left"], "left"),
        (["--model", "fixture", "--backend", "kaldi"], "kaldi"),
    ],
)
def test_transcribe_refuses_what_cannot_be_used_in_one_line(
    shell: Shell, samples: Path, arguments: list[str], named: str
) -> None:
    said = shell("transcribe", samples / "en_000.flac", *arguments)
    (line,) = [line for line in said.err.splitlines() if line.startswith("nightscribe:")]
    assert said.status == 2
    assert named in line


def test_doctor_looks_at_everything(shell: Shell, samples: Path, tmp_path: Path) -> None:
    said = shell("doctor", samples, tmp_path / "tables")
    assert said.status == 0, said.out
    for subject in ("device", "model fixture", "backend faster-whisper", "spool", "source", "destination", "prefect"):
        assert re.search(rf"^ok +{re.escape(subject)}", said.out, re.MULTILINE), subject
    assert not list((tmp_path / "tables").rglob("*.parquet"))


def test_doctor_says_what_a_run_would_fail_on(shell: Shell, tmp_path: Path) -> None:
    said = shell("doctor", tmp_path / "nowhere", tmp_path / "tables", "--model", "no-such-model")
    assert said.status == 1
    assert re.search(r"^bad +model no-such-model: .*fetch", said.out, re.MULTILINE)
    assert re.search(r"^bad +source .*nowhere", said.out, re.MULTILINE)


def test_doctor_asks_the_prefect_server(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    said = shell("doctor")
    assert said.status == 1
    assert re.search(r"^bad +prefect: .*prefect server start", said.out, re.MULTILINE)


def test_doctor_goes_on_after_a_destination_of_the_wrong_kind(shell: Shell) -> None:
    said = shell("doctor", "/nowhere/at-all", "memory://x", "--model", "no-such-model")
    assert said.status == 1
    for subject in ("bad +model no-such-model", "ok +backend faster-whisper", "bad +destination memory", "ok +prefect"):
        assert re.search(f"^{subject}", said.out, re.MULTILINE), subject


def test_transcribe_refuses_a_folder_that_cannot_be_made(shell: Shell, samples: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, Path("/proc/new")):
        said = shell("transcribe", samples / "en_000.flac", "--model", "fixture", "--output-dir", folder)
        assert said.status == 2
        assert said.err.startswith(f"nightscribe: --output-dir {folder} cannot be made")


def test_models_list_names_the_built_in_one(shell: Shell) -> None:
    said = shell("models", "list")
    assert said.status == 0
    assert re.search(r"^fixture .*built in", said.out, re.MULTILINE)


def test_models_fetch_copies_the_built_in_one_for_another_machine(shell: Shell, samples: Path, tmp_path: Path) -> None:
    fetched = shell("models", "fetch", "fixture", tmp_path / "carried")
    assert fetched.status == 0
    said = shell("transcribe", samples / "en_000.flac", "--model", tmp_path / "carried")
    assert said.out == "how can i help you next week\n"


def test_models_fetch_refuses_an_unknown_name(shell: Shell) -> None:
    said = shell("models", "fetch", "colossal")
    assert said.status == 2
    assert "colossal" in said.err


def test_failures_of_a_place_without_tables(shell: Shell, tmp_path: Path) -> None:
    said = shell("failures", tmp_path)
    assert said.status == 2
    assert "holds no tables" in said.err


def test_several_files_as_json_are_one_object_a_line(shell: Shell, samples: Path) -> None:
    both = (samples / "en_000.flac", samples / "ko_000.flac")
    said = shell("transcribe", *both, "--model", "fixture", "--format", "json")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["file"] for row in rows] == [str(path) for path in both]
    assert [(row["language"], row["text"]) for row in rows] == [
        ("en", "how can i help you next week"),
        ("ko", "가격은 십 원입니다"),
    ]
    assert all(row["duration"] == row["duration_s"] > 1 for row in rows)


def test_two_files_of_one_name_are_not_written_over_each_other(shell: Shell, samples: Path, tmp_path: Path) -> None:
    (tmp_path / "en_000.wav").write_bytes((samples / "ko_000.flac").read_bytes())
    said = shell(
        "transcribe", samples / "en_000.flac", tmp_path / "en_000.wav", "--model", "fixture", "--output-dir", tmp_path
    )
    assert said.status == 2
    assert "same file" in said.err
