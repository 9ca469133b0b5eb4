"""What a request is refused with, and which status each error of the engine becomes.

    400 malformed  401 key  404 model or path  408 upload stands still  413 too large  415 not audio
    422 a parameter, named in `param`  429 queue full  500 a fault of ours  503 loading, draining, device in trouble
    504 not done within STT_REQUEST_SECONDS

The body is OpenAI's: `{"error": {"message", "type", "param", "code"}, "request_id"}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stt_engine.errors import (
    AudioError,
    AudioTooLarge,
    MemoryLimitExceeded,
    NightscribeError,
    NoAudioStream,
    NotAudio,
    PoisonousAudio,
    RetryableError,
    TerminalError,
    UnknownBackend,
    UnknownLanguage,
    UnsupportedOption,
    UsageError,
)


class Abandoned(TerminalError):
    """The client went away, or the server ends: nobody waits for the result."""


class RequestTooLong(TerminalError):
    """STT_REQUEST_SECONDS are over."""


class Refused(Exception):
    """A request that gets an answer other than 200."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s is not None else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def body(self, request_id: str) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error, "request_id": request_id}


def bad_parameter(name: str, message: str) -> Refused:
    return Refused(422, "invalid_parameter", f"{name}: {message}", param=name)


_BY_TYPE: Mapping[type[NightscribeError], tuple[int, str, str | None]] = {
    AudioTooLarge: (413, "too_large", "file"),
    NotAudio: (415, "not_audio", "file"),
    NoAudioStream: (415, "not_audio", "file"),
    PoisonousAudio: (422, "poisonous_audio", "file"),
    MemoryLimitExceeded: (422, "memory_limit", "file"),
    AudioError: (422, "bad_audio", "file"),
    UnknownBackend: (422, "invalid_parameter", "backend"),
    UnknownLanguage: (422, "invalid_parameter", "language"),
    UnsupportedOption: (422, "invalid_parameter", None),
    UsageError: (422, "invalid_parameter", None),
}

_OPTION_OF_FIELD = {"hotwords": "hotwords", "task=": "task", "language=": "language", "beam_size": "beam_size"}


def refusal_of(error: NightscribeError) -> Refused:
    """The answer for an error of the engine; one that is not the client's fault says no more than it must."""
    for kind, (status, code, param) in _BY_TYPE.items():
        if isinstance(error, kind):
            if param is None:
                param = next((p for start, p in _OPTION_OF_FIELD.items() if str(error).startswith(start)), None)
            return Refused(status, code, str(error), param=param)
    if isinstance(error, RequestTooLong):
        return Refused(504, "request_timeout", str(error))
    if isinstance(error, Abandoned):
        return Refused(503, "shutting_down", "the server ends; send it again", retry_after_s=5)
    if isinstance(error, RetryableError):
        return Refused(503, type(error).__name__, "the device is in trouble; send it again later", retry_after_s=10)
    return Refused(500, type(error).__name__, "the server cannot do this; its log has the reason")
