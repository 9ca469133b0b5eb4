"""Every query of deployments/sql/queries, on calls whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pyarrow.parquet as pq
import pytest

from tasks.storage import open_store
from tests.analysts.calls import ENGLISH, KOREAN, uri
from tests.tasks.builders import NOON, audio_files
from tests.tasks.compacting import land
from tests.tasks.views import VIEWS, connect

QUERIES = VIEWS.parent / "queries"
EXECUTED = (
    "daily", "keyword_search", "latest_transcripts", "low_confidence", "silence_share", "talk_share", "words_per_minute"
)  # fmt: skip
SPOKEN = ("kim/en_000.flac", "kim/상담 01.flac", "lee/en_long0.flac", "lee/two_sided.wav")
Rows = list[dict[str, Any]]


def ask(dest: Path | str, name: str, keyword: str = "") -> Rows:
    connection = connect(dest)
    connection.execute("SET VARIABLE keyword = ?", [keyword])
    found = connection.execute((QUERIES / f"{name}.duckdb.sql").read_text())
    columns = [column[0] for column in found.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


@pytest.fixture(scope="module")
def rows(tables: Path) -> Callable[[str], dict[str, Any]]:
    """The newest row of a recording, found without SQL."""
    found: dict[str, dict[str, Any]] = {}
    for part in sorted(tables.glob("transcripts/*/*.parquet")):
        for row in pq.ParquetFile(part).read().to_pylist():
            found[row["source_uri"]] = row
    return lambda key: found[uri(key)]


def test_every_query_is_tested_here() -> None:
    assert {path.name for path in QUERIES.iterdir()} == {f"{name}.duckdb.sql" for name in EXECUTED}
    assert all((QUERIES / f"{name}.duckdb.sql").read_text().startswith("-- ") for name in EXECUTED)


def test_latest_transcripts(tables: Path) -> None:
    found = {row["source_uri"]: row for row in ask(tables, "latest_transcripts")}
    assert list(found) == sorted(found)
    assert len(found) == 5, "the file that is no recording has no transcript, the one done twice has one"
    assert (found[uri("kim/en_000.flac")]["text"], found[uri("kim/상담 01.flac")]["text"]) == (ENGLISH, KOREAN)


def test_words_per_minute(tables: Path, rows: Callable[[str], dict[str, Any]]) -> None:
    found = {row["source_uri"]: row for row in ask(tables, "words_per_minute")}
    assert set(found) == set(map(uri, SPOKEN))
    for key, words in (("kim/en_000.flac", 7), ("kim/상담 01.flac", 3)):
        row = found[uri(key)]
        assert row["words"] == words
        assert row["words_per_minute"] == pytest.approx(words / rows(key)["speech_s"] * 60, abs=0.06)
    assert list(found)[-1] == uri("kim/상담 01.flac")


def test_silence_share(tables: Path, rows: Callable[[str], dict[str, Any]]) -> None:
    found = {row["source_uri"]: row["silence_share"] for row in ask(tables, "silence_share")}
    assert next(iter(found)) == uri("lee/silence.flac")
    assert found[uri("lee/silence.flac")] == 1.0
    mixed, apart = rows("lee/en_long0.flac"), rows("lee/two_sided.wav")
    assert found[uri("lee/en_long0.flac")] == pytest.approx(1 - mixed["speech_s"] / mixed["duration_s"], abs=0.001)
    assert found[uri("lee/two_sided.wav")] == pytest.approx(1 - apart["speech_s"] / apart["duration_s"] / 2, abs=0.001)
    assert found[uri("lee/two_sided.wav")] > 0.5


def test_low_confidence(tables: Path, tmp_path: Path) -> None:
    assert ask(tables, "low_confidence") == [], "the built-in model is sure of the sentences it knows"
    store = open_store(str(tmp_path / "dest"))
    files = audio_files(4)
    land(store, files)
    found = ask(store.uri, "low_confidence")
    assert [row["source_uri"] for row in found] == [file.uri for file in files[1:]], "the first has failed"
    # A segment of 0.75 s is flagged, the other of 0.5 s is not.
    assert [tuple(row.values())[1:] for row in found] == [(1, 0.75, 0.6, -0.3, ["low_confidence"])] * 3


def test_talk_share(tables: Path, rows: Callable[[str], dict[str, Any]]) -> None:
    first, second = ask(tables, "talk_share")
    assert (first["source_uri"], first["channel"], second["channel"]) == (uri("lee/two_sided.wav"), 0, 1)
    segments = rows("lee/two_sided.wav")["segments"]
    said_s = [sum(s["end_s"] - s["start_s"] for s in segments if s["channel"] == channel) for channel in (0, 1)]
    assert [first["talk_s"], second["talk_s"]] == pytest.approx(said_s, abs=0.006)
    assert first["talk_share"] == pytest.approx(said_s[0] / sum(said_s), abs=0.001)
    assert first["talk_share"] + second["talk_share"] == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize(
    ("keyword", "found"),
    [
        ("WEEK", [(SPOKEN[0], "00:00:00", None), (SPOKEN[2], "00:00:12", None), (SPOKEN[3], "00:00:00", 0)]),
        ("nine hundred", [("lee/two_sided.wav", "00:00:03", 1)]),
        ("가격", [("kim/상담 01.flac", "00:00:00", None)]),
        (normalize("NFD", "가격"), [("kim/상담 01.flac", "00:00:00", None)]),  # as macOS composes it
        ("refund", []),
    ],
)  # fmt: skip
def test_keyword_search(tables: Path, keyword: str, found: list[tuple[str, str, int | None]]) -> None:
    answer = ask(tables, "keyword_search", keyword)
    places = [(row["source_uri"], row["at"], row["channel"]) for row in answer]
    assert places == [(uri(key), *rest) for key, *rest in found]
    assert all(not row["text"].startswith(" ") for row in answer)


def test_the_time_code_of_a_long_call(tmp_path: Path) -> None:
    """1.5 s are 1, not 2; hours count on."""
    store = open_store(str(tmp_path / "dest"))
    land(store, audio_files(2))
    assert [row["at"] for row in ask(store.uri, "keyword_search", "bye")] == ["00:00:01"]
    connection = connect(store.uri)
    sql = (QUERIES / "keyword_search.duckdb.sql").read_text().replace("latest_segments", "later")
    connection.execute("CREATE VIEW later AS SELECT * REPLACE (start_s + 3600 * 101 AS start_s) FROM latest_segments")
    connection.execute("SET VARIABLE keyword = 'bye'")
    assert connection.execute(sql).fetchall()[0][1] == "101:00:01"


def test_daily(tables: Path, tmp_path: Path) -> None:
    first, second, third = ask(tables, "daily")
    hours = (2.3215625 + 22.2859375) / 3600
    assert first == {
        "day": date(2026, 3, 1), "recordings": 2, "hours": round(hours, 4), "failed": 0, "reasons": None,
    }  # fmt: skip
    assert (second["recordings"], second["failed"], second["reasons"]) == (3, 1, {"NotAudio": 1})
    assert (third["day"], third["recordings"]) == (date(2026, 3, 3), 1), "done again: it counts where it is newest"
    store = open_store(str(tmp_path / "dest"))
    land(store, audio_files(5), at=NOON + timedelta(hours=11, minutes=59))
    assert ask(store.uri, "daily")[0] | {"reasons": {}} == {
        "day": date(2026, 3, 1), "recordings": 5, "hours": round(4 * 2.5 / 3600, 4), "failed": 1, "reasons": {},
    }  # fmt: skip
