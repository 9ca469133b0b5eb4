"""docs/analysts.md, followed word by word on real tables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.analysts.calls import ENGLISH, KOREAN, uri
from tests.flows.test_commands import Shell, shell  # noqa: F401

ROOT = Path(__file__).parents[2]
DEST = "s3://tables/calls"


def blocks(language: str, tables: Path) -> list[str]:
    page = (ROOT / "docs" / "analysts.md").read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [block.replace(DEST, str(tables)) for block in found]


def test_the_python_runs_and_finds_the_newest_rows(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    by_duckdb, keyword, by_polars, by_pandas = blocks("python", tables)
    known: dict[str, Any] = {}
    exec(by_duckdb, known)
    exec(keyword, known)
    assert len(known["newest"]) == 6
    assert [row[0] for row in known["found"]] == [uri("kim/상담 01.flac")]
    for block in (by_polars, by_pandas):
        known = {}
        exec(block, known)
        frame = known["newest"]
        texts = dict(zip(frame["source_uri"], frame["text"], strict=True))
        assert len(texts) == len(frame) == 6
        assert (texts[uri("kim/en_000.flac")], texts[uri("kim/상담 01.flac")]) == (ENGLISH, KOREAN)
        assert str(max(frame["transcribed_at"]))[:10] == "2026-03-03"


def test_the_commands_run(
    shell: Shell,  # noqa: F811
    tables: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "written.csv").write_text(f"key,text\nkim/en_000.flac,{ENGLISH}\n")
    commands = [line for block in blocks("sh", tables) for line in block.splitlines()]
    assert len(commands) == 3
    for command in commands:
        said = shell(*shlex.split(command)[1:])
        assert said.status == 0, said.err
        assert said.out
    assert (tmp_path / "subtitles/s3/calls/2026/kim/en_000.flac.srt").exists()
    assert [path.name for path in (tmp_path / "korean").rglob("*.txt")] == ["상담 01.flac.txt"]


@pytest.mark.parametrize("where", ["labels['agent'] = 'kim'", "transcribed_at > now() - INTERVAL 1 DAY"])
def test_the_conditions_that_it_names_can_be_used(where: str) -> None:
    from tasks.current_rows import Condition

    assert f"`{where}`" in (ROOT / "docs" / "analysts.md").read_text()
    Condition(where)
