"""`nightscribe run` as an operator starts it, small enough that a fault can be placed in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.flows.conftest import CommandLine, Said
from tests.flows.tables import rows

N_FILES, FILES_PER_PART = 18, 2
N_PARTS = N_FILES // FILES_PER_PART
RUN_OPTIONS = ("--model", "fixture", "--device", "cpu", "--cpu-workers", "1", "--files-per-part", str(FILES_PER_PART),
               "--task-batch-s", "0.2", "--device-batch-windows", "2", "--retry-delay-s", "0.1", "--json")  # fmt: skip


class Runs:
    """`nightscribe run` over one source, as often as wanted, with the spool where it can be looked at."""

    def __init__(self, url: str, source: Path, spool: Path) -> None:
        self._command_line, self._source, self._spool = CommandLine(url), source, spool

    def start(self, dest: Path, *options: str) -> subprocess.Popen[str]:
        return self._command_line.start("run", self._source, dest, *RUN_OPTIONS, "--spool", self._spool, *options)

    def whole(self, dest: Path, *options: str) -> Said:
        process = self.start(dest, *options)
        out, err = process.communicate(timeout=150)
        return Said(process.returncode, out, err)


def said(dest: Path) -> dict[str, str]:
    return {name: row["text"] for name, row in rows(dest).items()}


def parts(dest: Path) -> int:
    return sum(1 for _ in dest.glob("transcripts/*/*.parquet"))
