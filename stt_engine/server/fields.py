"""The fields of a form to a typed request; whatever cannot be used is refused with the field's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stt_engine.server.problems import bad_parameter
from stt_engine.types import Task, Timestamps, TranscribeOptions

Fields = Mapping[str, tuple[str, ...]]

MAX_TEXT_CHARACTERS = 4000
"""Of a prompt or of hotwords; the model looks at some 220 tokens of both together."""
RESPONSE_FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
OUR_FIELDS = ("language", "backend", "task", "timestamps", "prompt", "hotwords")
OPENAI_FIELDS = (
    "model", "language", "prompt", "response_format", "temperature", "timestamp_granularities[]",
    "timestamp_granularities", "stream", "hotwords", "backend", "include[]", "include", "chunking_strategy",
)  # fmt: skip
"""`hotwords` and `backend` are ours; the last three are taken and make no difference here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, its language not yet checked against the model."""

    language: str | None
    backend: str | None
    task: Task
    timestamps: Timestamps
    prompt: str | None
    hotwords: str | None
    temperature: float = 0.0
    model: str | None = None
    response_format: str = "json"
    words: bool = False
    segments: bool = True
    stream: bool = False

    def options(self, language: str | None) -> TranscribeOptions:
        defaults = TranscribeOptions()
        ladder = defaults.temperatures
        if self.temperature > 0:
            ladder = (self.temperature, *(t for t in ladder if t > self.temperature))
        return TranscribeOptions(
            language=language,
            task=self.task,
            timestamps=self.timestamps,
            initial_prompt=self.prompt,
            hotwords=self.hotwords,
            temperatures=ladder,
        )


def our_request(fields: Fields) -> Asked:
    """Of POST /transcribe."""
    _only(fields, OUR_FIELDS)
    task = _choice(fields, "task", ("transcribe", "translate"), "transcribe")
    timestamps = _choice(fields, "timestamps", ("none", "segment", "word"), "segment")
    return Asked(
        language=_single(fields, "language"),
        backend=_single(fields, "backend"),
        task="translate" if task == "translate" else "transcribe",
        timestamps="none" if timestamps == "none" else "word" if timestamps == "word" else "segment",
        prompt=_text(fields, "prompt"),
        hotwords=_text(fields, "hotwords"),
        words=timestamps == "word",
    )


def openai_request(fields: Fields, task: Task) -> Asked:
    """Of POST /v1/audio/transcriptions and /v1/audio/translations."""
    _only(fields, OPENAI_FIELDS)
    response_format = _choice(fields, "response_format", RESPONSE_FORMATS, "json")
    granularities = (*fields.get("timestamp_granularities[]", ()), *fields.get("timestamp_granularities", ()))
    if unknown := [g for g in granularities if g not in ("word", "segment")]:
        raise bad_parameter("timestamp_granularities[]", f"{unknown[0][:40]!r}: choose word or segment")
    if granularities and response_format != "verbose_json":
        raise bad_parameter("timestamp_granularities[]", "wants response_format=verbose_json")
    stream = _choice(fields, "stream", ("true", "false", "True", "False", "1", "0"), "false").lower() in ("true", "1")
    if stream and response_format not in ("json", "text"):
        raise bad_parameter("stream", f"response_format={response_format} cannot be streamed; use json or text")
    return Asked(
        language=_single(fields, "language"),
        backend=_single(fields, "backend"),
        task=task,
        timestamps="word" if "word" in granularities else "segment",
        prompt=_text(fields, "prompt"),
        hotwords=_text(fields, "hotwords"),
        temperature=_number(fields, "temperature", 0.0, 1.0),
        model=_single(fields, "model"),
        response_format=response_format,
        words="word" in granularities,
        segments=not granularities or "segment" in granularities,
        stream=stream,
    )


def _only(fields: Fields, known: Sequence[str]) -> None:
    for name in fields:
        if name not in known:
            raise bad_parameter(name[:80], f"there is no such field; there are file, {', '.join(known)}")


def _single(fields: Fields, name: str) -> str | None:
    """None where it is missing or empty."""
    values = fields.get(name, ())
    if len(values) > 1:
        raise bad_parameter(name, "is there more than once")
    return (values[0].strip() or None) if values else None


def _text(fields: Fields, name: str) -> str | None:
    value = _single(fields, name)
    if value is not None and len(value) > MAX_TEXT_CHARACTERS:
        raise bad_parameter(name, f"has {len(value)} characters, more than {MAX_TEXT_CHARACTERS}")
    return value


def _choice(fields: Fields, name: str, allowed: Sequence[str], default: str) -> str:
    value = _single(fields, name) or default
    if value not in allowed:
        raise bad_parameter(name, f"{value[:40]!r}: choose one of {', '.join(allowed)}")
    return value


def _number(fields: Fields, name: str, least: float, most: float) -> float:
    value = _single(fields, name)
    if value is None:
        return least
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:  # false for NaN too
        raise bad_parameter(name, f"{value[:40]!r}: a number from {least:g} to {most:g}")
    return number
