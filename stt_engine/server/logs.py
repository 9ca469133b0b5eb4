"""Log lines that say which request they are about. Never a word of a transcript: names, seconds and counts alone."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import logging.config
import re
import uuid
from collections.abc import Iterator

_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id() -> str:
    return _request_id.get()


@contextlib.contextmanager
def about(name: str) -> Iterator[None]:
    """Log lines inside bear this request's id; several with commas between, for a device batch."""
    token = _request_id.set(name)
    try:
        yield
    finally:
        _request_id.reset(token)


def new_request_id(asked_for: str | None) -> str:
    """The client's own X-Request-ID where it is harmless, else a new one."""
    return asked_for if asked_for and _ACCEPTED_ID.fullmatch(asked_for) else uuid.uuid4().hex


def shown(name: str) -> str:
    """A name from outside as it may stand in a log line: one line, printable, not endless."""
    return "".join(c if c.isprintable() else "?" for c in name[:200])


class _RequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id()
        return True


def configure_logging(level: str = "INFO") -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request_id": {"()": _RequestId}},
            "formatters": {
                "line": {"format": "%(asctime)s %(levelname)s %(name)s request_id=%(request_id)s %(message)s"}
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request_id"]}},
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {
                "stt_engine": {"level": level},
                "uvicorn": {"level": level, "handlers": [], "propagate": True},
                "uvicorn.access": {"level": "WARNING"},  # ours has the request's id
            },
        }
    )
