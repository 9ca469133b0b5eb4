"""The process: uvicorn round the app, a guard against senders that trickle headers, an orderly end at SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from stt_engine.errors import NightscribeError, UsageError
from stt_engine.server.app import create_app
from stt_engine.server.logs import configure_logging
from stt_engine.server.service import Service
from stt_engine.server.settings import ServerSettings

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 30
_CONNECTIONS_PER_PLACE, _CONNECTIONS_BESIDE = 4, 64


class GuardedProtocol(H11Protocol):
    """uvicorn waits for the end of a request's head for ever; this does not."""

    head_within_s: float = 10.0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        cycle_before = self.cycle
        super().data_received(data)
        if self.cycle is not cycle_before:
            self._stop_timer()
        elif self._head_timer is None and not self._under_way():
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _under_way(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_within_s, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.drain()
        super().handle_exit(sig, frame)


def serve(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is under way.

    Raises:
        UsageError: the address is taken; the model, device or a backend cannot be used.
        DeviceFailed: the device broke while it was in use; a supervisor that starts the service again may help.
    """
    configure_logging()
    failure: list[NightscribeError] = []
    server: _Server

    def give_up(error: NightscribeError) -> None:
        failure.append(error)
        service.drain()
        server.should_exit = True

    service = Service(settings, on_failure=give_up)
    options: dict[str, Any] = {
        "http": type("Guarded", (GuardedProtocol,), {"head_within_s": settings.header_seconds}),
        "ws": "none",
        "log_config": None,
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": int(settings.drain_seconds),
        "limit_concurrency": _CONNECTIONS_PER_PLACE * settings.max_queue + _CONNECTIONS_BESIDE,
        "backlog": 1024,
    }
    listener = _listen(settings)
    server = _Server(uvicorn.Config(create_app(service), **options), service)
    log.info("listening on http://%s:%d", settings.host, listener.getsockname()[1])
    # uvicorn raises the signal again once it has ended; an orderly end is exit status 0.
    before = {sig: signal.signal(sig, lambda *_: None) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listener])
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
    if failure:
        raise failure[0]
    if not service.ended:
        # The interpreter would pull its memory from under a thread that computes, and abort.
        logging.shutdown()
        os._exit(0)


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror}); choose another STT_PORT"
        ) from error
    return listener
