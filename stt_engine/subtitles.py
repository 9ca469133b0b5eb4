"""A transcript as a file that people and players read: txt, json, srt, vtt, tsv.

One small class per format behind `TranscriptWriter`, after openai/whisper's `utils.py`. Times are those of the
transcript, relative to the file. Where channels were kept apart, each segment says whose it is.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from stt_engine.errors import UsageError
from stt_engine.types import Seconds, Segment, Transcript


class TranscriptWriter(ABC):
    """One format. `render` gives the whole file, ending in a newline unless it is empty."""

    suffix: ClassVar[str]
    """Without the dot; also the format's name on the command line."""

    @abstractmethod
    def render(self, transcript: Transcript) -> str:
        """The text of the file."""

    def write(self, transcript: Transcript, path: Path) -> Path:
        """Writes UTF-8 with `\\n` line ends, whole or not at all. Raises UsageError where it cannot."""
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_bytes(self.render(transcript).encode())
            partial.replace(path)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}. Name another folder.") from error
        return path


class TextWriter(TranscriptWriter):
    """One line a segment, no times."""

    suffix = "txt"

    def render(self, transcript: Transcript) -> str:
        lines = (f"{_label(segment, '{}: ')}{_one_line(segment.text)}" for segment in transcript.segments)
        return _joined(lines) if transcript.segments else _joined(filter(None, [_one_line(transcript.text)]))


class JsonWriter(TranscriptWriter):
    """Every field of `Transcript`, segments and words included, tokens left out; not escaped to ASCII."""

    suffix = "json"

    def render(self, transcript: Transcript) -> str:
        fields = {name: transcript[name] for name in transcript if name != "segments"}
        fields["segments"] = [
            {name: value for name, value in asdict(segment).items() if name != "tokens"}
            for segment in transcript.segments
        ]
        return json.dumps(fields, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


class SrtWriter(TranscriptWriter):
    """SubRip: numbered cues, a comma before the milliseconds."""

    suffix = "srt"

    def render(self, transcript: Transcript) -> str:
        cues = (
            f"{number}\n{_cue_times(segment, ',')}\n{_label(segment, '[{}] ')}{_one_line(segment.text)}\n"
            for number, segment in enumerate(_with_text(transcript.segments), start=1)
        )
        return "\n".join(cues)


class VttWriter(TranscriptWriter):
    """WebVTT (w3.org/TR/webvtt1): channels as voices, `<v Channel 0>`."""

    suffix = "vtt"

    def render(self, transcript: Transcript) -> str:
        cues = (
            f"\n{_cue_times(segment, '.')}\n{_label(segment, '<v {}>')}{_vtt_escaped(_one_line(segment.text))}\n"
            for segment in _with_text(transcript.segments)
        )
        return "WEBVTT\n" + "".join(cues)


class TsvWriter(TranscriptWriter):
    """Start and end in whole milliseconds, channel (empty when mixed), text; tabs and line ends in it become spaces."""

    suffix = "tsv"

    def render(self, transcript: Transcript) -> str:
        rows = (
            f"{_milliseconds(segment.start_s)}\t{_milliseconds(segment.end_s)}\t"
            f"{'' if segment.channel is None else segment.channel}\t{_one_line(segment.text)}"
            for segment in transcript.segments
        )
        return _joined(["start\tend\tchannel\ttext", *rows])


_WRITERS = {writer.suffix: writer for writer in (TextWriter(), JsonWriter(), SrtWriter(), VttWriter(), TsvWriter())}
FORMATS = tuple(_WRITERS)
"""What `writer_for` knows."""


def writer_for(suffix: str) -> TranscriptWriter:
    """The writer of a format. Raises UsageError for one that there is not."""
    try:
        return _WRITERS[suffix]
    except KeyError:
        raise UsageError(f"there is no output format {suffix!r}; choose from {', '.join(FORMATS)}.") from None


def format_time(time_s: Seconds, decimal_mark: str = ".") -> str:
    """`HH:MM:SS.mmm`, at least two digits of hours, rounded to the nearest millisecond with every carry.

    Raises ValueError for a negative time.
    """
    seconds, milliseconds = divmod(_milliseconds(time_s), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal_mark}{milliseconds:03d}"


def _milliseconds(time_s: Seconds) -> int:
    # Rounded once, as an integer: rounding the parts apart would give 00:00:60.
    if not 0 <= time_s < float("inf"):
        raise ValueError(f"a time in a file is not negative, and finite: {time_s}")
    return int(time_s * 1000 + 0.5)


def _cue_times(segment: Segment, decimal_mark: str) -> str:
    return f"{format_time(segment.start_s, decimal_mark)} --> {format_time(segment.end_s, decimal_mark)}"


def _label(segment: Segment, form: str) -> str:
    return "" if segment.channel is None else form.format(f"Channel {segment.channel}")


def _with_text(segments: Iterable[Segment]) -> Iterable[Segment]:
    """A cue without text is an error in some players."""
    return (segment for segment in segments if segment.text.strip())


def _one_line(text: str) -> str:
    """Runs of white space as one space: a blank line would end a cue, a tab a column."""
    # "-->" separates the times of a cue and must not stand in its text; SRT has no escape for it.
    return " ".join(text.split()).replace("-->", "->")


def _vtt_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
