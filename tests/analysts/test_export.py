"""`nightscribe export`: what lies in the tables, as files."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_engine import WhisperSTT
from stt_engine.subtitles import writer_for
from tasks.compact import compact
from tasks.export import place_of
from tasks.storage import open_store
from tests.analysts.calls import ENGLISH, KOREAN, uri
from tests.flows.test_commands import Shell, shell  # noqa: F401
from tests.tasks.builders import NOON, audio_files
from tests.tasks.compacting import land, text_of

LANDED = {"kim/상담 01.flac", "kim/en_000.flac", "lee/en_long0.flac", "lee/two_sided.wav", "lee/silence.flac"}


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix", ["srt", "vtt", "txt", "json", "tsv"])
def test_a_file_for_each_recording_with_a_transcript(
    shell: Shell,  # noqa: F811
    tables: Path,
    tmp_path: Path,
    suffix: str,
) -> None:
    said = shell("export", tables, "--format", suffix, "--to", tmp_path / "out")
    assert said.status == 0
    assert said.out == f"5 transcripts written to {tmp_path / 'out'} as {suffix}; 1 have none, they failed\n"
    assert "exporting" in said.err
    assert files_below(tmp_path / "out") == {f"s3/calls/2026/{key}.{suffix}" for key in LANDED}
    folder = tmp_path / "out" / "s3" / "calls" / "2026"
    assert KOREAN in (folder / f"kim/상담 01.flac.{suffix}").read_text()
    assert ENGLISH in (folder / f"kim/en_000.flac.{suffix}").read_text()
    if suffix in ("srt", "vtt"):
        assert "Channel 1" in (folder / f"lee/two_sided.wav.{suffix}").read_text()


@pytest.mark.parametrize("suffix", ["srt", "json"])
def test_what_is_exported_is_what_the_engine_writes(
    shell: Shell,  # noqa: F811
    tables: Path,
    samples: Path,
    tmp_path: Path,
    suffix: str,
) -> None:
    """Through the tables and back nothing is lost: byte by byte."""
    stt = WhisperSTT("fixture", device="cpu", backend="faster-whisper", cpu_threads=1)
    heard = stt.transcribe(samples / "en_long0.flac", timestamps="word")
    stt.close()
    shell("export", tables, "--format", suffix, "--to", tmp_path)
    written = (tmp_path / "s3/calls/2026/lee" / f"en_long0.flac.{suffix}").read_text()
    assert len(heard.segments) > 1
    assert written == writer_for(suffix).render(heard)


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("language = 'ko'", {"kim/상담 01.flac"}),
        ("labels['agent'] = 'kim'", {"kim/상담 01.flac", "kim/en_000.flac"}),
        ("ingest_date = DATE '2026-03-03' -- the youngest", {"kim/en_000.flac"}),
        ("transcribed_at < '2026-03-02 00:00:00+00'", {"kim/상담 01.flac", "lee/en_long0.flac"}),
        ("list_contains(list_transform(segments, lambda s: s.channel), 1)", {"lee/two_sided.wav"}),
        ("transcripts.duration_s > 1000", set[str]()),
        ("text = ''", {"lee/silence.flac"}),
    ],
)
def test_a_condition_chooses_among_the_current_rows(
    shell: Shell,  # noqa: F811
    tables: Path,
    tmp_path: Path,
    where: str,
    keys: set[str],
) -> None:
    said = shell("export", tables, "--format", "txt", "--to", tmp_path, "--where", where, "--json")
    assert (said.status, files_below(tmp_path)) == (0, {f"s3/calls/2026/{key}.txt" for key in keys})
    assert json.loads(said.out) == {
        "dest": str(tables), "to": str(tmp_path), "format": "txt", "exported": len(keys), "without_transcript": 0,
    }  # fmt: skip
    assert f"{len(keys)} transcripts written" in said.err


def test_the_redone_text_is_exported_and_compaction_changes_nothing(tmp_path: Path) -> None:
    from tasks.export import export_transcripts

    store = open_store(str(tmp_path / "dest"))
    files = audio_files(6)
    land(store, files)
    land(store, files[1:3], 1, at=NOON + timedelta(hours=1), note=" redone")
    out = tmp_path / "out"
    first = export_transcripts(store.uri, out, output_format="txt")
    assert (first.exported, first.without_transcript) == (4, 2)
    redone = out / place_of(files[1].uri, "txt")
    assert redone.read_text() == f"{text_of(files[1], 1, ' redone')}\nbye\n"
    before = {name: (out / name).read_bytes() for name in files_below(out)}
    redone.unlink()
    compact(store, target_bytes=1_000_000)
    again = export_transcripts(store.uri, out, output_format="txt")
    assert again == first
    assert {name: (out / name).read_bytes() for name in files_below(out)} == before


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("langage = 'ko'", 'column "langage" not found'),
        ("duration_s >", "syntax error"),
        ("duration_s = 'long'", "'long'"),
        ("1 = 1; DROP TABLE transcripts", "--where"),
        ("1 = 1) UNION ALL (SELECT 1", "syntax error"),
        ("sum(duration_s) > 1", "aggregates"),
        ("(SELECT count(*) FROM read_text('/etc/hostname')) > 0", "disabled by configuration"),
        ("duration_s > (SELECT avg(duration_s) FROM transcripts)", "does not exist"),
    ],
)
def test_a_condition_that_cannot_be_used_is_said_in_one_line(
    shell: Shell,  # noqa: F811
    tables: Path,
    tmp_path: Path,
    where: str,
    named: str,
) -> None:
    said = shell("export", tables, "--to", tmp_path / "out", "--where", where)
    (line,) = [line for line in said.err.splitlines() if line.startswith("nightscribe:")]
    assert (said.status, said.out) == (2, "")
    assert "--where" in line and named in line and "docs/tables.md" in line
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_used_is_refused(shell: Shell, tables: Path, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "file"
    file.write_text("")
    for arguments, named in (
        ((tables, "--to", tmp_path, "--format", "docx"), "docx"),
        ((tmp_path / "elsewhere", "--to", tmp_path), "holds no tables"),
        ((tables, "--to", file), f"{file} cannot be made"),
    ):
        said = shell("export", *arguments)
        assert (said.status, named in said.err, said.out) == (2, True, ""), said.err


def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    shell: Shell,  # noqa: F811
    tables: Path,
    tmp_path: Path,
) -> None:
    outside, to = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (to / "s3").mkdir(parents=True)
    (to / "s3" / "calls").symlink_to(outside)
    said = shell("export", tables, "--to", to)
    assert (said.status, "a link leads out of it" in said.err) == (2, True)
    assert files_below(outside) == set()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (uri("kim/상담 01.flac"), "s3/calls/2026/kim/상담 01.flac.srt"),
        ("/data/a.wav", "local/data/a.wav.srt"),
        ("gs://b/a.wav", "gs/b/a.wav.srt"),
    ],
)
def test_where_a_recording_lies(address: str, place: str) -> None:
    assert str(place_of(address, "srt")) == place


ADDRESSES = st.lists(st.sampled_from(["..", ".", "", "a", "b\\c", "~0123abcd", "x" * 300, "\x00", "/", "한", "s3://"]))


@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), ADDRESSES.map("/".join)))
def test_no_address_leads_out_of_the_folder(tail: str) -> None:
    for address in (f"s3://bucket/{tail}", f"/{tail}", tail):
        place = place_of(address, "srt")
        assert not place.is_absolute()
        assert ".." not in place.parts
        assert all(0 < len(part.encode()) <= 220 for part in place.parts)
        assert os.path.normpath(f"/out/{place}") == f"/out/{place}"


@given(st.lists(ADDRESSES.map(lambda parts: "s3://b/" + "/".join(parts)), unique=True, min_size=2))
def test_no_two_recordings_share_a_place(addresses: list[str]) -> None:
    assert len({place_of(address, "srt") for address in addresses}) == len(addresses)
