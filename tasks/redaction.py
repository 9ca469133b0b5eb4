"""Secrets taken out of text that is about to leave: log lines, errors that travel, rows, records, the terminal.

Our own messages hold none. But what libraries say is repeated (an unforeseen exception, a traceback with its causes),
and they name addresses in full: a store that answers with a redirection may send to a presigned one. What is known to
be secret is what the environment and fsspec's configuration hold under telling names, and what URLs are opened with.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

import fsspec

from tasks.one_line import escape_arguments, without_controls

HIDDEN = "[secret]"

_TELLING = re.compile(
    r"secret|token|passw|api_?key|access_?key|account_?key|credential|connection_?string|authorization|auth_string|sas$|^key$",
    re.IGNORECASE,
)
_LEAST_LENGTH = 8
"""Shorter values are switches and placeholders; hiding them would tear words apart."""
_USERINFO = re.compile(r"(\w://)[^\s/@'\"<>]+@")
QUERY_NAMES = (
    r"(?:x-(?:amz|goog|oss|ms)-[\w-]+|aws\w*|googleaccessid|sig|signature|\w*token|\w*key(?:_?id)?|\w*secret|\w*password|"
    r"passwd|pwd|\w*credentials?|auth(?:orization)?|\w*connection_?string)"
)
"""Names under which URLs carry what opens them: presigned ones of S3 and Google, SAS of Azure, storage options."""
_QUERY = re.compile(rf"([?&;]{QUERY_NAMES}=)[^\s&;'\"<>)]+", re.IGNORECASE)


def redacted(text: str) -> str:
    for secret in known_secrets():
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", _USERINFO.sub(rf"\1{HIDDEN}@", text))
    return text


def known_secrets() -> set[str]:
    """Values, also as they stand in URLs."""
    found = {value for name, value in _named_values() if len(value) >= _LEAST_LENGTH and _TELLING.search(name)}
    return found | {quote(value, safe="") for value in found}


def _named_values() -> Iterator[tuple[str, str]]:
    yield from os.environ.items()
    yield from _leaves(fsspec.config.conf)


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, str):
            yield name, value


def redact_logs() -> None:
    """Every log record of this process from now on, whoever handles it: console, file, Prefect's API."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        escape_arguments(record)
        try:
            said = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a bad log call: its handler says so
            return record
        if (clean := redacted(without_controls(said))) != said:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[0] is not None:
            # Formatters take the text that is there already.
            record.exc_text = redacted("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return record

    make_redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_redacted)


def redact_last_words() -> None:
    """The traceback of a fault of ours, as Python prints it when a process ends by it."""

    def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = say
