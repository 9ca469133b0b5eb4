"""A transcript as the body of an answer: ours, and each format of OpenAI's audio API."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from fastapi.responses import JSONResponse, PlainTextResponse, Response

from stt_engine.server.fields import Asked
from stt_engine.server.language_names import english_name
from stt_engine.subtitles import writer_for
from stt_engine.types import ChunkTranscript, Segment, Transcript


def our_answer(transcript: Transcript, asked: Asked, request_id: str) -> dict[str, Any]:
    """Of POST /transcribe."""
    return {
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": transcript.language_probability,
        "duration": transcript.duration_s,
        "segments": [_our_segment(segment, asked) for segment in transcript.segments],
        "backend": transcript.backend,
        "model": transcript.model,
        "warnings": list(transcript.warnings),
        "request_id": request_id,
    }


def openai_answer(transcript: Transcript, asked: Asked) -> Response:
    """In the `response_format` asked for."""
    if asked.response_format == "text":
        return PlainTextResponse(transcript.text + "\n")
    if asked.response_format in ("srt", "vtt"):
        media_type = "text/vtt" if asked.response_format == "vtt" else "application/x-subrip"
        return Response(writer_for(asked.response_format).render(transcript), media_type=f"{media_type}; charset=utf-8")
    if asked.response_format == "verbose_json":
        return JSONResponse(_verbose(transcript, asked))
    return JSONResponse({"text": transcript.text, "usage": _usage(transcript)})


def delta_text(heard: Sequence[ChunkTranscript], *, first: bool) -> str:
    """What these chunks add to the text; deltas laid end to end are the transcript's text."""
    text = " ".join(t for chunk in heard for s in chunk.segments if (t := s.text.strip()))
    return text if first or not text else " " + text


def delta_event(text: str) -> bytes:
    return _event({"type": "transcript.text.delta", "delta": text})


def done_event(transcript: Transcript) -> bytes:
    return _event({"type": "transcript.text.done", "text": transcript.text, "usage": _usage(transcript)})


def error_event(body: dict[str, Any]) -> bytes:
    return _event({"type": "error", **body})


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration_s)}


def _our_segment(segment: Segment, asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] = {
        "start": segment.start_s,
        "end": segment.end_s,
        "text": segment.text,
        "avg_logprob": segment.avg_logprob,
        "no_speech_prob": segment.no_speech_prob,
        "flags": list(segment.flags),
    }
    if asked.words:
        found["words"] = [
            {"word": word.text, "start": word.start_s, "end": word.end_s, "probability": word.probability}
            for word in segment.words
        ]
    return found


def _verbose(transcript: Transcript, asked: Asked) -> dict[str, Any]:
    language = "en" if asked.task == "translate" else transcript.language
    body: dict[str, Any] = {
        "task": asked.task,
        "language": english_name(language),
        "duration": transcript.duration_s,
        "text": transcript.text,
        "usage": _usage(transcript),
    }
    if asked.segments:
        body["segments"] = [_openai_segment(number, segment) for number, segment in enumerate(transcript.segments)]
    if asked.words:
        body["words"] = [
            {"word": word.text.strip(), "start": word.start_s, "end": word.end_s} for word in transcript.words
        ]
    return body


def _openai_segment(number: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "seek": int(segment.start_s * 100),
        "start": segment.start_s,
        "end": segment.end_s,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }
