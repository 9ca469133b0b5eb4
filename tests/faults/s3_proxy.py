"""A proxy in front of the tests' S3 that does to requests what networks and overloaded stores do.

It speaks HTTP on a real socket and hands everything on as it came, so signatures stay valid. Rules say which requests
meet which fault; every request is noted with its time, so that it can be counted what a fault has cost.
"""

from __future__ import annotations

import enum
import http.client
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TRICKLE_BYTES, TRICKLE_EVERY_S = 16, 0.1
_XML = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message></Error>'
_PER_CONNECTION = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "expect"})


class Fault(enum.Enum):
    INTERNAL_ERROR = enum.auto()
    SLOW_DOWN = enum.auto()
    REFUSED = enum.auto()
    """403 AccessDenied, as from a bucket that has become read-only."""
    RESET = enum.auto()
    """The connection is reset before the store hears of the request."""
    LOST_ANSWER = enum.auto()
    """The store does what it was asked; the connection is reset before it says so."""
    STALL = enum.auto()
    """Nothing comes, for as long as the client waits."""
    TRICKLE = enum.auto()
    """The answer comes, 160 bytes a second: no single read ever times out."""
    TRUNCATED = enum.auto()
    """Half of the body, then the connection ends."""
    SHORT = enum.auto()
    """Half of the body, and a Content-Length that agrees with it."""


_ANSWERS = {
    Fault.INTERNAL_ERROR: (500, "InternalError"),
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.REFUSED: (403, "AccessDenied"),
}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    key: str
    """BUCKET/KEY, decoded."""
    query: str

    @property
    def kind(self) -> str:
        return "LIST" if self.method == "GET" and "list-type=2" in self.query else self.method


@dataclass(frozen=True, slots=True)
class Rule:
    """The fault that some requests meet. The first rule that strikes is the one that counts."""

    fault: Fault
    kinds: tuple[str, ...] = ()
    """GET, PUT, HEAD, DELETE, LIST; empty: all."""
    key: str = ""
    """A regular expression that is searched for in BUCKET/KEY."""
    query: str = ""
    probability: float = 1.0
    times: int | None = None
    """How often in all; None: without end."""
    times_per_key: int | None = None

    def fits(self, request: Request) -> bool:
        wanted = not self.kinds or request.kind in self.kinds
        return wanted and bool(re.search(self.key, request.key)) and bool(re.search(self.query, request.query))


@dataclass(frozen=True, slots=True)
class Seen:
    at_s: float
    """Monotonic."""
    request: Request
    fault: Fault | None


class S3Proxy:
    """What the tests hold of a running proxy: its rules, changed at any moment, and what it has seen."""

    def __init__(self, upstream: str, seed: int) -> None:
        self.upstream = urlsplit(upstream)
        self.url = ""
        self.released = threading.Event()
        """Set when the proxy ends: what stalls is let go."""
        self.before: Callable[[Request], None] = lambda _: None
        """Called with every request before anything else; at that moment it may change rules, or the store itself."""
        self._lock = threading.Lock()
        self._chance = random.Random(seed)
        self._rules: tuple[Rule, ...] = ()
        self._struck: dict[tuple[int, str | None], int] = {}
        self._seen: list[Seen] = []

    def obey(self, *rules: Rule) -> None:
        """From now on these rules, and only these."""
        with self._lock:
            self._rules, self._struck = rules, {}

    def seen(self, *kinds: str, key: str = "") -> Sequence[Seen]:
        with self._lock:
            return [
                one
                for one in self._seen
                if (not kinds or one.request.kind in kinds) and re.search(key, one.request.key)
            ]

    def faults(self) -> Sequence[Seen]:
        return [one for one in self.seen() if one.fault is not None]

    def forget(self) -> None:
        with self._lock:
            self._seen.clear()

    def strike(self, request: Request) -> Fault | None:
        """The fault that this request meets, noted."""
        with self._lock:
            fault = next((rule.fault for i, rule in enumerate(self._rules) if self._strikes(i, rule, request)), None)
            self._seen.append(Seen(time.monotonic(), request, fault))
            return fault

    def _strikes(self, index: int, rule: Rule, request: Request) -> bool:
        # The query is left out: it changes from page to page.
        whole, mine = (index, None), (index, f"{request.kind} {request.key}")
        spent = rule.times is not None and self._struck.get(whole, 0) >= rule.times
        spent |= rule.times_per_key is not None and self._struck.get(mine, 0) >= rule.times_per_key
        if spent or not rule.fits(request) or self._chance.random() >= rule.probability:
            return False
        for counted in (whole, mine):
            self._struck[counted] = self._struck.get(counted, 0) + 1
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: S3Proxy

    def _serve(self) -> None:
        path = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, unquote(path.path).lstrip("/"), path.query)
        self.proxy.before(request)
        fault = self.proxy.strike(request)
        if fault is Fault.RESET:
            self._reset()
        elif fault is Fault.STALL:
            self.proxy.released.wait()
            self._reset()
        elif fault in _ANSWERS:
            status, code = _ANSWERS[fault]
            self._answer(status, [("Content-Type", "application/xml")], _XML.format(code=code).encode())
        else:
            self._hand_on(fault, body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _hand_on(self, fault: Fault | None, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self.proxy.upstream.hostname or "", self.proxy.upstream.port)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _PER_CONNECTION:
                    upstream.putheader(name, value)
            if body or self.command == "PUT":
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body)
            answer = upstream.getresponse()
            payload = answer.read()
        finally:
            upstream.close()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _PER_CONNECTION]
        length = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else len(payload)
        if fault is Fault.LOST_ANSWER:
            self._reset()
        elif fault is Fault.SHORT:
            self._answer(answer.status, headers, payload[: len(payload) // 2])
        elif fault is Fault.TRUNCATED:
            self._answer(answer.status, headers, payload[: len(payload) // 2], length)
            self.close_connection = True
        elif fault is Fault.TRICKLE:
            self._answer(answer.status, headers, b"", length)
            self._trickle(payload)
        else:
            self._answer(answer.status, headers, payload, length)

    def _answer(
        self, status: int, headers: Sequence[tuple[str, str]], payload: bytes, length: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(payload) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def _trickle(self, payload: bytes) -> None:
        for start in range(0, len(payload), TRICKLE_BYTES):
            self.wfile.write(payload[start : start + TRICKLE_BYTES])
            if self.proxy.released.wait(TRICKLE_EVERY_S):
                break
        self.close_connection = True

    def _reset(self) -> None:
        """RST instead of FIN: nobody takes it for the end of an answer."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass  # the client has gone: it was killed, or it tired of waiting

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def running_proxy(upstream: str, *, seed: int = 0) -> Iterator[S3Proxy]:
    """A proxy before the S3 at `upstream`, without rules; gone afterwards, with every request that it holds."""
    proxy = S3Proxy(upstream, seed)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="s3-proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
