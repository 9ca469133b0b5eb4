"""The views for analysts: of each recording the newest row, each once."""

from __future__ import annotations

from datetime import timedelta

from tasks.storage import Store
from tests.tasks.builders import NOON, audio_files
from tests.tasks.compacting import contents, land, text_of
from tests.tasks.views import latest


def test_the_newest_row_of_each_recording_and_what_belongs_to_it(local_store: Store) -> None:
    files = audio_files(4)
    land(local_store, files)
    redone = land(local_store, files[1:3], 1, at=NOON + timedelta(hours=1), note=" redone")
    found = {row["source_uri"]: row for row in latest(local_store.uri, "transcripts")}
    assert set(found) == {file.uri for file in files}
    assert found[files[1].uri]["text"] == text_of(files[1], 1, " redone") + " bye"
    assert found[files[3].uri]["text"] == text_of(files[3]) + " bye"
    assert found[files[0].uri]["status"] == "failed"
    segments = latest(local_store.uri, "segments")
    assert len(segments) == 6
    assert {row["source_uri"] for row in segments if row["batch_id"] == redone.batch_id} == {
        files[1].uri,
        files[2].uri,
    }
    assert {row["channel"] for row in segments} == {None}
    assert len(latest(local_store.uri, "words")) == 9


def test_parts_that_are_there_twice_count_once(local_store: Store) -> None:
    """As while a compaction has created its output and not yet deleted its inputs."""
    files = audio_files(4)
    land(local_store, files)
    for stored in list(local_store.list("")):
        if stored.path.endswith(".parquet"):
            local_store.create_exclusive(
                stored.path.rpartition("/")[0] + "/merged.parquet", local_store.read(stored.path)
            )
    assert len(contents(local_store)["transcripts"]) == 8
    assert len(latest(local_store.uri, "transcripts")) == 4
    assert (len(latest(local_store.uri, "segments")), len(latest(local_store.uri, "words"))) == (6, 9)
