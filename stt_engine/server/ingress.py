"""Round every request: its id, the key, one log line, the figures, and an answer whatever happened inside."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stt_engine.errors import NightscribeError
from stt_engine.server.logs import about, new_request_id, shown
from stt_engine.server.metrics import Metrics
from stt_engine.server.problems import Refused, refusal_of
from stt_engine.server.settings import ServerSettings

log = logging.getLogger(__name__)

OPEN_PATHS = ("/health", "/ready", "/metrics", "/openapi.json", "/docs")
"""What answers without the key; nothing there says anything about recordings."""
_LINGER_S = 1.0
_LINGER_BYTES = 16 * 2**20
_CLIENT_GONE = 499


class Ingress:
    """ASGI middleware, outermost. Errors that routes raise become answers here, and nowhere else."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._key = settings.api_key.get_secret_value().encode() if settings.api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = new_request_id(headers.get("x-request-id"))
        with about(request_id):
            exchange = _Exchange(request_id, receive, send)
            started_s = time.perf_counter()
            try:
                await self._answer(scope, headers, exchange)
            finally:
                wall_s = time.perf_counter() - started_s
                self._metrics.request(scope["path"], exchange.status, wall_s)
                level = logging.DEBUG if scope["path"] in OPEN_PATHS else logging.INFO
                log.log(
                    level, "%s %s %d in %.3f s", shown(scope["method"]), shown(scope["path"]), exchange.status, wall_s
                )

    async def _answer(self, scope: Scope, headers: Headers, exchange: _Exchange) -> None:
        try:
            self._check_key(scope["path"], headers)
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = _CLIENT_GONE
            self._metrics.error("client_gone")
            log.info("the client went away")
        except Refused as refused:
            await self._refuse(exchange, refused)
        except NightscribeError as error:
            answer = refusal_of(error)
            if answer.status == 500:
                log.error("%s: %s", type(error).__name__, error)
            await self._refuse(exchange, answer)
        except Exception as error:  # a fault of ours: the client gets an answer, the log the trace
            log.exception("a fault")
            await self._refuse(exchange, Refused(500, type(error).__name__, "a fault of the server; see its log"))

    async def _refuse(self, exchange: _Exchange, refused: Refused) -> None:
        self._metrics.error(refused.code)
        log.info("refused: %d %s %s", refused.status, refused.code, shown(refused.param or ""))
        await exchange.refuse(refused)

    def _check_key(self, path: str, headers: Headers) -> None:
        if self._key is None or path in OPEN_PATHS:
            return
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode(), self._key):
            raise Refused(401, "invalid_api_key", "send the server's key: Authorization: Bearer KEY")


class _Exchange:
    """One request's two channels, watched: has the body come to its end, has the answer begun."""

    def __init__(self, request_id: str, receive: Receive, send: Send) -> None:
        self.request_id = request_id
        self.status = 500
        self._receive, self._send = receive, send
        self._body_ended = False
        self._begun = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._body_ended = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self.request_id
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        if self._begun:  # in the middle of a stream: the connection is cut, which clients notice
            raise RuntimeError("the answer had begun")
        body = json.dumps(refused.body(self.request_id), ensure_ascii=False).encode()
        headers: dict[str, Any] = {
            "Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers
        }  # fmt: skip
        if not self._body_ended:
            headers["Connection"] = "close"
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refused.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        await self._linger()
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        """A sender in the middle of an upload reads no answer from a connection that is cut: take in a little more."""
        n_bytes = 0
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self._body_ended and n_bytes < _LINGER_BYTES:
                    n_bytes += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return
