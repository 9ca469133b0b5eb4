"""The commands and flows that look after a DEST: compact, forget."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import typer

from stt_engine.errors import DestinationRefused, UsageError
from tasks.compact import CompactionSummary
from tasks.forget import ForgetSummary
from tasks.storage import open_store
from tests.flows.test_commands import Shell, shell  # noqa: F401
from tests.tasks.builders import audio_files
from tests.tasks.compacting import land_nights, live_uris, n_parts

FILES = audio_files(6)


@pytest.fixture
def dest(tmp_path: Path) -> str:
    place = str(tmp_path / "tables")
    land_nights(open_store(place), FILES, per_night=2)
    return place


def test_compact_on_the_command_line(shell: Shell, dest: str) -> None:  # noqa: F811
    dry = shell("compact", dest, "--dry-run", "--json")
    assert dry.status == 0
    assert json.loads(dry.out) | {"bytes_after": 0, "bytes_before": 0} == {
        "dest": dest, "parts_before": 3, "parts_after": 1, "bytes_before": 0, "bytes_after": 0, "rows": 6,
        "rows_superseded": 0, "parts_left_alone": 0, "dry_run": True,
    }  # fmt: skip
    assert "3 parts would become 1" in dry.err
    assert n_parts(open_store(dest)) == 3
    said = shell("compact", dest)
    assert (said.status, said.out) == (0, "")
    assert "3 parts became 1; 6 rows stay, 0 superseded ones are gone" in said.err
    assert live_uris(open_store(dest)) == Counter(file.uri for file in FILES)
    assert "nothing to compact: 1 parts, 6 rows" in shell("compact", dest).err


def test_compact_refuses_what_it_cannot_use(shell: Shell, dest: str, tmp_path: Path) -> None:  # noqa: F811
    nothing = shell("compact", tmp_path / "elsewhere")
    assert (nothing.status, "holds no tables" in nothing.err) == (2, True)
    small = shell("compact", dest, "--target-bytes", "12")
    assert (small.status, "--target-bytes 12" in small.err) == (2, True)


@pytest.mark.usefixtures("prefect_api")
def test_the_flow_of_the_compaction(dest: str, tmp_path: Path) -> None:
    from flows.compact import compact

    state = compact(dest, return_state=True)
    assert state.is_completed()
    summary = state.result()
    assert isinstance(summary, CompactionSummary)
    assert state.message == summary.line == "3 parts became 1; 6 rows stay, 0 superseded ones are gone"
    refused = compact(str(tmp_path / "elsewhere"), return_state=True)
    assert refused.is_failed()
    assert isinstance(refused.result(raise_on_failure=False), DestinationRefused)
    assert refused.message is not None and "holds no tables" in refused.message


def test_forget_asks_on_a_terminal(
    shell: Shell,  # noqa: F811
    dest: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = FILES[1].uri
    nobody = shell("forget", uri, dest)
    assert (nobody.status, "give --yes" in nobody.err) == (2, True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[str] = []

    def answer(question: str, **_: object) -> bool:
        asked.append(question)
        return len(asked) == 2

    monkeypatch.setattr(typer, "confirm", answer)
    refused = shell("forget", uri, dest)
    assert (refused.status, "nothing was erased" in refused.err) == (2, True)
    assert f"{uri} has 1 rows of transcripts, 2 rows of segments, 3 rows of words" in refused.err
    assert "still in SOURCE" in refused.err
    assert live_uris(open_store(dest))[uri] == 1
    said = shell("forget", uri, dest)
    assert said.status == 0
    assert "erased 1 rows of transcripts, 2 of segments, 3 of words" in said.err
    assert live_uris(open_store(dest)) == Counter(file.uri for file in FILES if file.uri != uri)


def test_forget_without_asking_and_what_is_not_there(shell: Shell, dest: str, tmp_path: Path) -> None:  # noqa: F811
    uri = FILES[2].uri
    said = shell("forget", uri, dest, "--yes", "--json")
    figures = json.loads(said.out)
    assert (said.status, figures["uri"]) == (0, uri)
    assert (figures["transcripts"], figures["segments"], figures["words"]) == (1, 2, 3)
    for arguments in ([uri, dest], [uri, dest, "--yes"]):
        again = shell("forget", *arguments)
        (line,) = again.err.splitlines()
        assert again.status == 2
        assert line.startswith(f"nightscribe: {uri} is nowhere in DEST")
    nothing = shell("forget", uri, tmp_path / "elsewhere", "--yes")
    assert (nothing.status, "holds no tables" in nothing.err) == (2, True)


@pytest.mark.usefixtures("prefect_api")
def test_the_flow_that_forgets(dest: str) -> None:
    from flows.forget import forget

    state = forget(FILES[1].uri, dest, return_state=True)
    assert state.is_completed()
    summary = state.result()
    assert isinstance(summary, ForgetSummary)
    assert (summary.transcripts, state.message) == (1, summary.line)
    assert FILES[1].uri not in summary.line
    again = forget(FILES[1].uri, dest, return_state=True)
    assert again.is_failed()
    assert isinstance(again.result(raise_on_failure=False), UsageError)
