"""What the OpenAPI document says of the forms, which are read as they stream in and not by FastAPI."""

from __future__ import annotations

from typing import Any

from stt_engine.server.fields import MAX_TEXT_CHARACTERS, RESPONSE_FORMATS

_FILE = {"type": "string", "format": "binary", "description": "The recording, in any container that FFmpeg opens."}
_LANGUAGE = {"type": "string", "description": "A Whisper code such as ko; auto or nothing lets the speech vote."}
_TEXT = {"type": "string", "maxLength": MAX_TEXT_CHARACTERS}
_BACKEND = {"type": "string", "description": "One of those that /ready lists."}

OUR_FORM = {
    "file": _FILE,
    "language": _LANGUAGE,
    "backend": _BACKEND,
    "task": {"type": "string", "enum": ["transcribe", "translate"], "default": "transcribe"},
    "timestamps": {"type": "string", "enum": ["none", "segment", "word"], "default": "segment"},
    "prompt": {**_TEXT, "description": "Text that goes before, for names and style."},
    "hotwords": {**_TEXT, "description": "Words to expect."},
}
OPENAI_FORM = {
    "file": _FILE,
    "model": {"type": "string", "description": "The one that /v1/models lists, or whisper-1."},
    "language": _LANGUAGE,
    "prompt": _TEXT,
    "response_format": {"type": "string", "enum": list(RESPONSE_FORMATS), "default": "json"},
    "temperature": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
    "timestamp_granularities[]": {"type": "array", "items": {"type": "string", "enum": ["word", "segment"]}},
    "stream": {"type": "boolean", "default": False},
    "hotwords": {**_TEXT, "description": "Ours: words to expect."},
    "backend": {**_BACKEND, "description": "Ours: one of those that /ready lists."},
}

_REFUSAL = {
    "type": "object",
    "required": ["error", "request_id"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        },
        "request_id": {"type": "string"},
    },
}
_REASONS = {
    400: "The form is malformed.",
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    408: "The upload stood still.",
    413: "Too many bytes, or too many seconds.",
    415: "Not a form, or the recording is no audio.",
    422: "A parameter cannot be used; `param` names it.",
    429: "The queue is full; see Retry-After.",
    503: "Loading, draining, or the device is in trouble.",
    504: "Not done within the time that the server gives a request.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": _REFUSAL}}
    return {status: {"description": _REASONS[status], "content": content} for status in statuses}


def form(properties: dict[str, Any], description: str) -> dict[str, Any]:
    """Arguments for FastAPI's decorator."""
    schema = {"type": "object", "required": ["file"], "properties": properties, "additionalProperties": False}
    kinds = ["application/json", "text/plain", "text/vtt", "application/x-subrip", "text/event-stream"]
    shown = kinds if "response_format" in properties else kinds[:1]
    return {
        "responses": {
            200: {"description": description, "content": {kind: {"schema": {}} for kind in shown}},
            **refusals(*_REASONS),
        },
        "response_model": None,
        "openapi_extra": {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}},
    }
