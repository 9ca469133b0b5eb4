"""What lies in the tables after a night, and after the nights that follow it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.run_record import read_records
from tasks.storage import open_store
from tests.flows.conftest import Night, advanced, logs_of
from tests.flows.tables import query, rows


def reference(folder: Path) -> dict[str, dict[str, object]]:
    lines = (folder / "reference.jsonl").read_text().splitlines()
    return {line["file"]: line for line in map(json.loads, lines)}


def test_every_sample_and_every_recording_lands_once_with_its_duration(
    night: Callable[..., Night], samples: Path, recordings: Path, tmp_path: Path
) -> None:
    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    for folder in (samples, recordings):
        (source / folder.name).symlink_to(folder)
    expected = reference(samples) | reference(recordings)
    done = night(source, dest, backend="fake", advanced=advanced(files_per_part=20))

    assert done.state.is_completed()
    landed = rows(dest)
    assert set(landed) == set(expected)
    assert done.summary.landed == done.summary.planned == done.summary.discovered == len(expected) > 60
    for name, row in landed.items():
        assert row["status"] == "landed", (name, row["error_message"])
        assert row["duration_s"] == pytest.approx(expected[name]["duration_s"], abs=0.1), name
        assert row["attempts"] == 1
    assert landed["stereo_diarization.wav"]["channels"] == 2
    assert landed["silence.flac"]["text"] == landed["noise.flac"]["text"] == ""
    assert done.summary.audio_seconds == pytest.approx(sum(row["duration_s"] for row in landed.values()), abs=0.1)
    assert len(list(dest.glob("transcripts/*/*.parquet"))) > 3

    again = night(source, dest, backend="fake")
    assert (again.summary.planned, again.summary.already_done) == (0, len(expected))
    assert again.state.message == f"nothing is new: {len(expected)} files found, {len(expected)} done already"
    (record,) = read_records(open_store(str(dest)))
    assert record.run_id == done.summary.run_id, "a run without work left a record"
    assert record.counts["model_loads"] == 1
    assert len([line for line in logs_of(done.flow_run_id) if line.startswith("model loaded in")]) == 1
    assert "0 planned" in "\n".join(logs_of(again.flow_run_id))
    assert not any("model loaded" in line for line in logs_of(again.flow_run_id)), "a model was loaded for nothing"


def test_what_was_said_is_landed_with_times_that_join_and_is_never_logged(
    night: Callable[..., Night],
    samples: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    for name in ("en_000.flac", "ko_000.flac", "en_long0.flac", "ko_long0.flac", "noise.flac"):
        shutil.copy(samples / name, source / name)
    done = night(source, dest, timestamps="word", key_pattern=r"(?P<code>\w\w)_(?P<kind>long)?(?P<number>\d+)")

    landed = rows(dest)
    assert landed["en_000.flac"]["text"] == "how can i help you next week"
    assert landed["ko_000.flac"]["text"] == "가격은 십 원입니다"
    assert {name: row["language"] for name, row in landed.items()} == {
        "en_000.flac": "en",
        "ko_000.flac": "ko",
        "en_long0.flac": "en",
        "ko_long0.flac": "ko",
        "noise.flac": None,
    }
    assert dict(landed["en_long0.flac"]["labels"]) == {"code": "en", "kind": "long", "number": "0"}
    assert dict(landed["noise.flac"]["labels"]) == {}
    for row in landed.values():
        assert row["run_id"] == done.summary.run_id
        assert row["backend"] == ("faster-whisper" if row["text"] else None)
        assert 0.0 <= row["covered_s"] <= row["speech_s"] + 0.01 <= row["duration_s"] + 0.02

    joined = query(
        """
        SELECT t.source_uri, t.text, t.duration_s, string_agg(trim(s.text), ' ' ORDER BY s.segment_id) AS said,
               min(s.start_s) AS first_s, max(s.end_s) AS last_s, len(any_value(t.segments)) AS nested, count(*) AS flat
        FROM {transcripts} t JOIN {segments} s USING (file_id, options_hash, batch_id) GROUP BY ALL
        """,
        dest,
    )
    assert len(joined) == 4
    for row in joined:
        assert row["said"] == row["text"]
        assert row["nested"] == row["flat"]
        assert 0.0 <= row["first_s"] < row["last_s"] <= row["duration_s"]
    words = query(
        """
        SELECT s.file_id, s.segment_id, s.text, string_agg(w.word, '' ORDER BY w.word_id) AS words,
               min(w.start_s) >= any_value(s.start_s) - 0.2 AND max(w.end_s) <= any_value(s.end_s) + 0.2 AS inside
        FROM {segments} s JOIN {words} w USING (file_id, segment_id, batch_id) GROUP BY ALL
        """,
        dest,
    )
    assert len(words) == query("SELECT count(*) AS n FROM {segments}", dest)[0]["n"]
    for row in words:
        assert row["words"].strip() == row["text"].strip()
        assert row["inside"]

    lines = [*(record.getMessage() for record in caplog.records), *logs_of(done.flow_run_id), *capfd.readouterr()]
    logged = "\n".join(lines)
    assert "en_long0.flac: " in logged
    for row in landed.values():
        said = row["text"].split()
        for start in range(len(said) - 2):
            assert " ".join(said[start : start + 3]) not in logged

    (part,) = dest.glob("transcripts/*/*.parquet")
    metadata = pq.read_schema(part).metadata
    assert metadata[b"nightscribe.schema_version"] == b"1"


def test_new_content_and_force_append_and_the_latest_row_is_found(
    night: Callable[..., Night], samples: Path, tmp_path: Path
) -> None:
    source, dest = tmp_path / "calls", tmp_path / "tables"
    source.mkdir()
    shutil.copy(samples / "en_000.flac", source / "a.flac")
    shutil.copy(samples / "en_001.flac", source / "b.flac")
    night(source, dest, backend="fake")
    first = {row["source_uri"]: row for row in query("SELECT * FROM {transcripts}", dest)}

    shutil.copy(samples / "ko_000.flac", source / "a.flac")
    changed = night(source, dest, backend="fake")
    assert (changed.summary.planned, changed.summary.already_done) == (1, 1)

    forced = night(source, dest, backend="fake", force=True)
    assert (forced.summary.planned, forced.summary.landed) == (2, 2)
    found = query("SELECT * FROM {transcripts}", dest)
    assert len(found) == 5
    assert len({(row["source_uri"], row["source_version"], row["batch_id"]) for row in found}) == 5

    latest = query(
        """
        SELECT * FROM {transcripts}
        QUALIFY row_number() OVER (PARTITION BY source_uri ORDER BY transcribed_at DESC) = 1
        """,
        dest,
    )
    assert {row["run_id"] for row in latest} == {forced.summary.run_id}
    by_uri = {row["source_uri"]: row for row in latest}
    a, b = str(source / "a.flac"), str(source / "b.flac")
    assert by_uri[a]["text"] != first[a]["text"]
    assert by_uri[b]["text"] == first[b]["text"]
    assert by_uri[a]["content_sha256"] != first[a]["content_sha256"]

    other = night(source, dest, backend="fake", timestamps="none", limit=1)
    assert other.summary.planned == 1, "another option that changes the text makes a file new"
    os.utime(source / "b.flac")
    touched = night(source, dest, backend="fake")
    assert touched.summary.planned == 1, "size and time of modification are the version of a local file"
