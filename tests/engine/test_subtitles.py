"""The writers: every format of one transcript, times by property, escapes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.errors import UsageError
from stt_engine.subtitles import FORMATS, format_time, writer_for
from stt_engine.types import Segment, Transcript, Word


def segment(text: str, start_s: float = 0.0, end_s: float = 1.0, channel: int | None = None) -> Segment:
    return Segment(text, start_s, end_s, channel, -0.2, 0.01, 1.1, 0.0)


def transcript(*segments: Segment) -> Transcript:
    text = " ".join(part.text.strip() for part in segments)
    return Transcript(text, "en", 0.99, 10.0, 8.0, 7.5, segments, "fake", "fixture")


CALL = transcript(
    segment(" hello & welcome", 0.4, 1.9996, channel=0),
    segment(" 안녕하세요 <김>", 2.0, 3.5, channel=1),
)


def test_srt() -> None:
    assert writer_for("srt").render(CALL) == (
        "1\n00:00:00,400 --> 00:00:02,000\n[Channel 0] hello & welcome\n"
        "\n2\n00:00:02,000 --> 00:00:03,500\n[Channel 1] 안녕하세요 <김>\n"
    )


def test_vtt_escapes_and_names_channels_as_voices() -> None:
    assert writer_for("vtt").render(CALL) == (
        "WEBVTT\n"
        "\n00:00:00.400 --> 00:00:02.000\n<v Channel 0>hello &amp; welcome\n"
        "\n00:00:02.000 --> 00:00:03.500\n<v Channel 1>안녕하세요 &lt;김&gt;\n"
    )


def test_tsv_in_milliseconds() -> None:
    assert writer_for("tsv").render(CALL) == (
        "start\tend\tchannel\ttext\n400\t2000\t0\thello & welcome\n2000\t3500\t1\t안녕하세요 <김>\n"
    )


def test_txt_with_and_without_channels() -> None:
    assert writer_for("txt").render(CALL) == "Channel 0: hello & welcome\nChannel 1: 안녕하세요 <김>\n"
    assert writer_for("txt").render(transcript(segment(" one"), segment(" two"))) == "one\ntwo\n"


def test_json_holds_every_field_and_reads_back() -> None:
    word = Word(" hello", 0.4, 0.8, 0.9)
    full = replace(CALL, segments=(replace(CALL.segments[0], words=(word,), flags=("repetition",)),), warnings=("w",))
    rendered = writer_for("json").render(full)
    read = json.loads(rendered)
    assert set(read) == set(full)
    assert read["duration_s"] == 10.0 and read["warnings"] == ["w"]
    assert read["segments"][0]["words"] == [{"text": " hello", "start_s": 0.4, "end_s": 0.8, "probability": 0.9}]
    assert read["segments"][0]["flags"] == ["repetition"]
    assert "안녕하세요" in writer_for("json").render(CALL), "Korean stays readable"


@pytest.mark.parametrize(
    ("suffix", "expected"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n"), ("tsv", "start\tend\tchannel\ttext\n")]
)
def test_silence_gives_an_empty_file_of_the_format(suffix: str, expected: str) -> None:
    silent = replace(transcript(), text="", language=None, language_probability=None)
    assert writer_for(suffix).render(silent) == expected


def test_text_cannot_break_out_of_its_cue() -> None:
    sly = transcript(segment("first\n\n2\n00:00:09,000 --> 00:00:10,000\tlast"), segment("  "))
    for suffix in ("srt", "vtt"):
        rendered = writer_for(suffix).render(sly)
        assert rendered.count("-->") == 1
        assert len(re.findall(r"\n\n", rendered)) == (1 if suffix == "vtt" else 0)
    assert writer_for("tsv").render(sly).splitlines()[1].count("\t") == 3


def test_time_carries() -> None:
    assert format_time(59.9996) == "00:01:00.000"
    assert format_time(3599.9995) == "01:00:00.000"
    assert format_time(100 * 3600 + 0.001, ",") == "100:00:00,001"
    assert format_time(0.0004) == "00:00:00.000"


@given(st.integers(min_value=0, max_value=200 * 3_600_000))
def test_time_round_trips_to_the_millisecond(milliseconds: int) -> None:
    found = re.fullmatch(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})", format_time(milliseconds / 1000))
    assert found
    hours, minutes, seconds, rest = (int(part) for part in found.groups())
    assert ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest == milliseconds


@given(st.floats(0, 400_000), st.floats(0, 400_000))
def test_time_keeps_order(a: float, b: float) -> None:
    def key(text: str) -> tuple[int, str]:
        return len(text), text

    assert (key(format_time(a)) <= key(format_time(b))) or a > b


@given(st.text(max_size=80))
def test_vtt_text_holds_no_markup_of_its_own(text: str) -> None:
    rendered = writer_for("vtt").render(transcript(segment(text)))
    body = rendered.removeprefix("WEBVTT\n").split("\n", 2)[-1]
    assert "<" not in body and ">" not in body
    assert not re.search(r"&(?!amp;|lt;|gt;)", body)


@pytest.mark.parametrize("time_s", [-0.1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(time_s: float) -> None:
    with pytest.raises(ValueError, match="not negative"):
        format_time(time_s)


def test_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'docx'.*txt, json, srt, vtt, tsv"):
        writer_for("docx")


@pytest.mark.parametrize("suffix", FORMATS)
def test_write_is_whole_or_not_at_all(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"통화 #1.{suffix}"
    assert writer_for(suffix).write(CALL, path) == path
    assert path.read_bytes().decode() == writer_for(suffix).render(CALL)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(UsageError, match="absent"):
        writer_for(suffix).write(CALL, tmp_path / "absent" / "x.srt")
