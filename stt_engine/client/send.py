"""One recording to the server, again where that may help."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from stt_engine.client.options import ClientOptions
from stt_engine.client.rows import Row
from stt_engine.errors import AccessDenied, RetryableError, UsageError
from stt_engine.types import Seconds

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 60.0


class ServerBusy(RetryableError):
    """429, 5xx, a time-out, a connection that broke."""

    def __init__(self, message: str, *, retry_after_s: Seconds | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Interrupted(RetryableError):
    """The run was told to end; the file is left for the next."""


class Sender:
    """Used by any number of threads."""

    def __init__(self, options: ClientOptions) -> None:
        """Raises UsageError where the address is none."""
        self._options = options
        self._ending = threading.Event()
        headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
        limits = httpx.Limits(max_connections=options.parallel, max_keepalive_connections=options.parallel)
        try:
            self._client = httpx.Client(
                base_url=options.url,
                headers=headers,
                limits=limits,
                timeout=httpx.Timeout(options.timeout_s, connect=10),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"--url {options.url}: is no address; write http://HOST:8003") from error

    def check(self) -> None:
        """Raises UsageError where no server answers, or it is not ours, before any file is sent."""
        try:
            answer = self._client.get("/health")
            ours = answer.status_code == 200 and answer.json().get("status") == "ok"
        except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
            raise UsageError(
                f"no server answers at {self._options.url} ({type(error).__name__}); start one with: nightscribe serve"
            ) from error
        except ValueError:
            ours = False
        if not ours:
            raise UsageError(f"what answers at {self._options.url} is no Nightscribe server; check --url")

    def send(self, path: Path, name: str) -> Row:
        """The file's row; one that failed says why. Raises AccessDenied where the key is refused."""
        retrying = Retrying(
            retry=retry_if_exception_type(ServerBusy),
            stop=stop_after_attempt(self._options.attempts),
            wait=_pause_s,
            sleep=self._pause,
            reraise=True,
        )
        try:
            return retrying(self._once, path, name)
        except RetryableError as error:
            return Row(name, error=str(error), retryable=True)
        except OSError as error:
            return Row(name, error=f"cannot be read: {error.strerror or type(error).__name__}")

    def end(self) -> None:
        """Files that are not under way are left, pauses are cut short."""
        self._ending.set()

    def close(self) -> None:
        self._client.close()

    def _pause(self, pause_s: Seconds) -> None:
        self._ending.wait(pause_s)

    def _once(self, path: Path, name: str) -> Row:
        if self._ending.is_set():
            raise Interrupted("the run was ended before this file")
        asked = {"language": self._options.language, "backend": self._options.backend}
        form = {field: value for field, value in asked.items() if value}
        with path.open("rb") as file:
            try:
                answer = self._client.post("/transcribe", data=form, files={"file": (path.name, file)})
            except httpx.TimeoutException as error:
                raise ServerBusy(f"no answer within {self._options.timeout_s:g} s") from error
            except httpx.TransportError as error:
                raise ServerBusy(f"the connection broke ({type(error).__name__})") from error
        if answer.status_code == 200:
            found: dict[str, Any] = answer.json()
            return Row(name, text=found["text"], language=found["language"], duration=found["duration"])
        said = f"{answer.status_code}: {_message(answer)} (request {answer.headers.get('x-request-id', '?')})"
        if answer.status_code == 401:
            raise AccessDenied(f"the server refuses the key: give it with STT_API_KEY ({said})")
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            raise ServerBusy(said, retry_after_s=_retry_after_s(answer))
        return Row(name, error=said)


_growing = wait_exponential_jitter(initial=0.5, max=30, jitter=1)


def _pause_s(state: RetryCallState) -> Seconds:
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, ServerBusy) else None
    return min(_LONGEST_PAUSE_S, max(asked_s or 0.0, _growing(state)))


def _retry_after_s(answer: httpx.Response) -> Seconds | None:
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isdigit() else None


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return answer.reason_phrase
