"""What is taken out of text before it leaves, and what is left as it was."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import fsspec
import pytest

from stt_engine.errors import StorageUnavailable
from tasks.redaction import redact_logs, redacted
from tasks.runners.wire import pack_error, unpack_error

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfi"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("SOME_TOKEN", "short")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"signed with {SECRET}.", "signed with [secret]."),
        ("?x=wJalrXUtnFEMI%2FK7MDENG%2BbPxRfi&y", "?x=[secret]&y"),
        ("https://kim:pass@host/a", "https://[secret]@host/a"),
        ("s3://calls/a/me@home.wav", "s3://calls/a/me@home.wav"),
        ("GET https://b/a?n=1&X-Amz-Signature=abc&m=1: 403", "GET https://b/a?n=1&X-Amz-Signature=[secret]&m=1: 403"),
        ("url='https://b/a?sv=2024&sig=abc%3D'", "url='https://b/a?sv=2024&sig=[secret]'"),
        ("s3://calls/me@home?#1 100%.wav: is empty", "s3://calls/me@home?#1 100%.wav: is empty"),
        ("a short word", "a short word"),
    ],
)
def test_secrets_go_and_the_rest_stays(text: str, left: str) -> None:
    assert redacted(text) == left


def test_what_fsspec_is_configured_with_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        fsspec.config.conf, "https", {"client_kwargs": {"headers": {"Authorization": "Bearer 0815-4711"}}}
    )
    assert redacted("sent Bearer 0815-4711") == "sent [secret]"


class Odd(Exception):
    """As those of some clients: made of more than a message."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(StorageUnavailable(f"no {SECRET}"), StorageUnavailable), (OSError(f"no {SECRET}"), OSError),
     (KeyError(SECRET), RuntimeError), (Odd(403, SECRET), RuntimeError)],
)  # fmt: skip
def test_an_error_that_travels_leaves_secrets_behind(error: Exception, kind: type[Exception]) -> None:
    error.__cause__ = ValueError(f"because of {SECRET}")
    arrived = unpack_error(pack_error(error, where="worker process 7"))
    assert type(arrived) is kind
    assert "[secret]" in str(arrived)
    (note,) = arrived.__notes__
    assert "because of [secret]" in note
    assert SECRET not in str(arrived) + note + repr(arrived.__cause__)


@pytest.fixture
def printed() -> Iterator[io.StringIO]:
    """What a logger prints, with every record of the process cleaned while the test lasts."""
    before = logging.getLogRecordFactory()
    sink = io.StringIO()
    handler = logging.StreamHandler(sink)
    logging.getLogger("talkative").addHandler(handler)
    redact_logs()
    redact_logs()
    yield sink
    logging.getLogger("talkative").removeHandler(handler)
    logging.setLogRecordFactory(before)


def test_log_lines_and_their_tracebacks(printed: io.StringIO) -> None:
    log = logging.getLogger("talkative")
    log.error("asked %s with %s", "host", SECRET)
    log.error("plain %d", 7)
    try:
        raise ValueError(f"refused {SECRET}")
    except ValueError:
        log.exception("it failed")
    said = printed.getvalue()
    assert "asked host with [secret]" in said and "plain 7" in said
    assert "ValueError: refused [secret]" in said
    assert SECRET not in said
