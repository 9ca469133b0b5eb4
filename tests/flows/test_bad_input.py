"""One night over everything that can be wrong with a file: a row for each that says so, and the others untouched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.engine.encoding import VARIANTS, Variant, encode, encode_video_only, jpeg, overwritten, wav, wav_of
from tests.flows.conftest import CommandLine, Night, ended, task_runs_of
from tests.flows.tables import query

FAILED = {
    "empty.wav": "EmptyFile",
    "letter.wav": "NotAudio",
    "photo.mp3": "NotAudio",
    "nothing but video.mp4": "NoAudioStream",
    "only a head.wav": "CorruptAudio",
    "locked.wav": "AccessDenied",
    "gone.wav": "SourceGone",
}
SILENT = ("zero length.wav", "silent.wav", "one sample.wav", "not a number.wav")
DAMAGED = ("truncated.mp3", "truncated.ogg", "truncated.opus", "corrupt.mp3", "lies about 3 GB.wav")
ODD = (
    "with space.flac",
    unicodedata.normalize("NFC", "한국어 녹음.flac"),
    unicodedata.normalize("NFD", "한국어 녹음.flac"),
    "hash#tag.flac",
    "hundred%20percent%.flac",
    "quote'single\".flac",
    "{braces} {0}.flac",
    "new\nline.flac",
    "[red]brackets[/red].flac",
    "UPPER.FLAC",
    "deep/er/and deeper/still.flac",
)
SOUND = ("eight channels.wav", "growing later.flac", *ODD)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    folder = tmp_path_factory.mktemp("calls")
    spoken, rate_hz = soundfile.read(samples / "en_long0.flac", dtype="float32")

    def encoded(name: str, variant: Variant) -> bytes:
        path = encode(folder / f"whole.{variant.suffix}", variant, _resampled(spoken, rate_hz, variant.rate_hz))
        content = path.read_bytes()
        path.unlink()
        return content

    mp3 = encoded("mp3", VARIANTS["mp3"])
    contents = {
        "empty.wav": b"",
        "letter.wav": b"Dear customer, thank you for your call.\n" * 40,
        "photo.mp3": jpeg(),
        "only a head.wav": wav(b"", claim=960_000),
        "locked.wav": wav(bytes(32_000)),
        "gone.wav": wav(bytes(32_000)),
        "zero length.wav": wav(b""),
        "silent.wav": wav(bytes(64_000)),
        "one sample.wav": wav(bytes(2)),
        "not a number.wav": wav_of(np.full((1, 16_000), np.nan, np.float32)),
        "eight channels.wav": wav_of(np.tile(spoken[: 3 * rate_hz], (8, 1)), rate_hz),
        "truncated.mp3": mp3[: len(mp3) // 3],
        "corrupt.mp3": overwritten(mp3, 0.3, 0.7),
        "lies about 3 GB.wav": wav(_pcm(spoken), rate_hz=rate_hz, claim=3_000_000_000),
    }
    for name, variant in (("truncated.ogg", "ogg-vorbis"), ("truncated.opus", "opus")):
        whole = encoded(name, VARIANTS[variant])
        contents[name] = whole[: len(whole) // 3]
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    encode_video_only(folder / "nothing but video.mp4")
    for name in ("growing.flac", "growing later.flac", *ODD):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(samples / "en_000.flac", folder / name)
    (folder / "locked.wav").chmod(0)
    (folder / "notes.txt").write_text("not ours")
    (folder / "folder.wav").mkdir()
    (folder / "broken link.wav").symlink_to(folder / "nowhere.wav")
    (folder / os.fsdecode(b"not utf-8 \xff.wav")).write_bytes(wav(bytes(2)))
    return folder


def _resampled(samples: np.ndarray, rate_hz: int, wanted_hz: int) -> np.ndarray:
    from scipy.signal import resample_poly

    found = resample_poly(samples, wanted_hz, rate_hz) if wanted_hz != rate_hz else samples
    return np.asarray(found, dtype=np.float32).clip(-0.9, 0.9)


def _pcm(samples: np.ndarray) -> bytes:
    return (samples * 32_767).astype("<i2").tobytes()


def test_a_night_over_everything_that_can_be_wrong(
    night_process: Callable[..., subprocess.Popen[str]],
    night: Callable[..., Night],
    command_line: CommandLine,
    source: Path,
    tmp_path: Path,
) -> None:
    dest = tmp_path / "tables"
    on_plan = {"delete": [str(source / "gone.wav")], "append": [str(source / "growing.flac")]}
    said = ended(night_process(source=str(source), dest=str(dest), backend="fake", deny=True, on_plan=on_plan))
    assert said.status == 0, said.err[-3000:]
    summary = said.json
    expected = {*FAILED, *SILENT, *DAMAGED, *SOUND}
    assert summary["state"] == "Completed", "a file that is left for the next run is no failure"
    assert (summary["planned"], summary["deferred"]) == (len(expected) + 1, 1)
    assert (summary["landed"], summary["failed_terminal"]) == (len(expected) - len(FAILED), len(FAILED))
    assert summary["failed_retryable"] == summary["not_started"] == 0

    found = query("SELECT * FROM {transcripts}", dest)
    landed = {row["source_uri"].removeprefix(f"{source}/"): row for row in found}
    assert len(found) == len(landed)
    assert set(landed) == expected
    for name, kind in FAILED.items():
        row = landed[name]
        assert (row["status"], row["error_type"]) == ("failed", kind), name
        assert name in row["error_message"]
        assert row["text"] is None
        assert row["attempts"] == 1, "a terminal error was tried again"
    for name in (*SILENT, *DAMAGED, *SOUND):
        assert landed[name]["status"] == "landed", (name, landed[name]["error_message"])
        assert landed[name]["error_type"] is None
    for name in SILENT:
        assert (landed[name]["text"], landed[name]["speech_s"]) == ("", 0.0)
    for name in DAMAGED:
        assert any("missing" in warning or "cut short" in warning for warning in landed[name]["warnings"]), name
        assert landed[name]["text"] != ""
        assert 3.0 < landed[name]["duration_s"] < 25.0
    assert landed["eight channels.wav"]["channels"] == 8
    assert len({landed[name]["text"] for name in ODD}) == 1, "the same recording under odd names"
    assert landed["zero length.wav"]["duration_s"] == 0.0

    listed = command_line("failures", dest, "--json")
    assert listed.status == 0
    failures = {line["uri"].rpartition("/")[2]: line for line in map(json.loads, listed.out.splitlines())}
    assert {name: line["error_type"] for name, line in failures.items()} == FAILED
    assert all(line["what_to_do"] and not line["retryable"] for line in failures.values())
    assert "docs/failures" not in listed.err
    table = command_line("failures", dest)
    assert all(name in table.out for name in FAILED)
    assert "upload it again" in table.out
    assert "each kind has a page: docs/failures/" in table.err

    runs = {run.name: run for run in task_runs_of(summary["flow_run_id"])}
    for name in (*FAILED, "growing.flac"):
        split = runs[f"split {name}"]
        assert (split.state.name, split.run_count) == ("Failed", 1), "what waiting cannot mend was tried again"

    # The file that was still being written is taken up, and nothing else.
    again = night(source, dest, backend="fake")
    assert (again.summary.planned, again.summary.landed, again.summary.deferred) == (1, 1, 0)
    assert again.summary.already_done == len(expected) - 1  # gone.wav is gone
