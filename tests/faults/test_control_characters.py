"""Keys with control characters: they reach the tables as they are, and no log line, terminal or message raw."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from tasks.one_line import one_line, without_controls
from tasks.redaction import redact_logs
from tests.flows.conftest import CommandLine
from tests.flows.tables import rows

FORGED = "a\n07:00:00.000 | INFO | tasks.claim - all is well\x1b[2K\x1b[1A\r.wav"
TURNED = "b\u202egnp.wav"
KEYS = (FORGED, TURNED, "c\x7f\x9b31m.wav", "한국어 🎙.wav")
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def test_controls_are_escaped_and_all_else_stays() -> None:
    assert one_line("a\nb\r\tc\x1b[1A\x9b\u202e\u2028") == r"a\nb\r\tc\x1b[1A\x9b\u202e\u2028"
    assert one_line("한국어 🎙 100% 'x' \\n") == "한국어 🎙 100% 'x' \\n"
    assert without_controls("Traceback:\n\tline\x1b[1A\r") == "Traceback:\n\tline\\x1b[1A\\r"


def test_a_log_line_stays_one_line(caplog: pytest.LogCaptureFixture) -> None:
    redact_logs()
    log = logging.getLogger("tasks.here")
    with caplog.at_level(logging.INFO):
        log.info("%s: %d s", FORGED, 3)
        log.warning("failed: %s", ValueError(FORGED))
        log.info(f"{TURNED} without arguments")
        log.info("%(key)s", {"key": "\x1b[1A"})
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == one_line(FORGED) + ": 3 s"
    assert said[1] == "failed: " + one_line(FORGED)
    assert not RAW.search("".join(said)) and "\n" not in "".join(said)


@pytest.mark.timeout(240)
def test_a_whole_night_writes_none_of_them(prefect_url: str, tmp_path: Path) -> None:
    """Files that fail, since a failure is what is written about; with --verbose, so that every line is."""
    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    for key in KEYS:
        (source / key).write_bytes(b"no audio at all " * 20)
    said = CommandLine(prefect_url)(
        "run", source, dest, "--model", "fixture", "--device", "cpu", "--cpu-workers", "1", "--verbose"
    )
    assert said.status == 0, said.err
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", said.err) if "\x1b[?25l" in said.err else said.err
    assert not RAW.search(lines), RAW.search(lines)
    assert "\n07:00:00.000" not in said.err, "a key has written a log line of its own"
    for key in KEYS:
        assert one_line(key) in said.err
    assert set(rows(dest)) == set(KEYS)
