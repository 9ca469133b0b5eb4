"""The doors: health, ours, OpenAI's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from stt_engine import __version__
from stt_engine.errors import NightscribeError
from stt_engine.server import openapi
from stt_engine.server.answers import delta_event, delta_text, done_event, error_event, openai_answer, our_answer
from stt_engine.server.fields import Asked, Fields, openai_request, our_request
from stt_engine.server.form import receive_form
from stt_engine.server.ingress import Ingress
from stt_engine.server.logs import request_id, shown
from stt_engine.server.problems import Refused, refusal_of
from stt_engine.server.service import Hearing, Service
from stt_engine.types import ChunkTranscript, Transcript

log = logging.getLogger(__name__)

FOREIGN_MODEL_NAMES = ("whisper-1",)
"""What clients of OpenAI's API send where nobody told them the model's name."""

T = TypeVar("T")


def create_app(service: Service) -> FastAPI:
    """The application around a service, which it starts and stops."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(title="Nightscribe", version=__version__, lifespan=lifespan, redoc_url=None)
    app.add_middleware(Ingress, settings=service.settings, metrics=service.metrics)
    app.add_exception_handler(HTTPException, _raise_as_refused)
    started_at = int(time.time())
    _add_health(app, service)

    @app.post("/transcribe", **openapi.form(openapi.OUR_FORM, "The transcript, its segments and what they rest on."))
    async def transcribe(request: Request) -> Response:
        return await _answer(request, service, our_request)

    @app.post("/v1/audio/transcriptions", **openapi.form(openapi.OPENAI_FORM, "In the response_format asked for."))
    async def transcriptions(request: Request) -> Response:
        return await _answer(request, service, lambda fields: openai_request(fields, "transcribe"))

    @app.post("/v1/audio/translations", **openapi.form(openapi.OPENAI_FORM, "English text, whatever was spoken."))
    async def translations(request: Request) -> Response:
        return await _answer(request, service, lambda fields: openai_request(fields, "translate"))

    card = {"id": service.settings.model_id, "object": "model", "created": started_at, "owned_by": "nightscribe"}

    @app.get("/v1/models")
    async def list_models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [card]})

    @app.get("/v1/models/{model:path}", responses=openapi.refusals(401, 404))
    async def retrieve_model(model: str) -> JSONResponse:
        _check_model(service, model)
        return JSONResponse(card)

    return app


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok", "version": __version__})

    @app.get("/ready", responses={503: {"description": "Loading, draining, or nothing loads; the body says why."}})
    async def ready() -> JSONResponse:
        now = service.readiness
        taking = service.takes_requests
        body = {
            "state": now.state if taking or now.state != "ready" else "draining",
            "model": service.settings.model_id,
            "backends": list(now.backends),
            "not_loaded": dict(now.not_loaded),
            "device": now.device,
            "compute_type": now.compute_type,
            "model_copies": now.copies,
        }
        return JSONResponse(body, status_code=200 if taking else 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _raise_as_refused(_: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in the shape of every other refusal."""
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    refused = Refused(error.status_code, codes.get(error.status_code, "refused"), error.detail)
    return JSONResponse(refused.body(request_id()), status_code=error.status_code, headers=error.headers)


def _check_model(service: Service, name: str | None) -> None:
    known = (service.settings.model_id, service.settings.model, *FOREIGN_MODEL_NAMES)
    if name is not None and name not in known:
        raise Refused(
            404, "model_not_found", f"model {name[:80]!r}: there is {service.settings.model_id}", param="model"
        )


async def _answer(request: Request, service: Service, read: Callable[[Fields], Asked]) -> Response:
    """From the first byte of an upload to the answer; a client that goes away ends it at any point."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(service.place())
        settings = service.settings
        until_s = asyncio.get_running_loop().time() + settings.request_seconds
        try:
            async with asyncio.timeout_at(until_s):
                form = await receive_form(
                    request, folder, max_file_bytes=settings.max_upload_bytes, idle_s=settings.upload_idle_seconds
                )
        except TimeoutError as error:
            raise service.too_long("received") from error
        asked = read(form.fields)
        _check_model(service, asked.model)
        log.info("received: file=%s bytes=%d", shown(form.file_name), form.size_bytes)
        hearing = await stack.enter_async_context(service.under_way(form, asked, request_id(), folder, until_s=until_s))
        if asked.stream:
            first = await _or_gone(request, hearing.more())
            if not first:  # all there is to say is the end, or the error that came instead
                await hearing.transcript()
            return _EventStream(stack.pop_all(), _events(hearing, first))
        transcript = await _or_gone(request, hearing.transcript())
        _log_done(transcript)
    if request.url.path == "/transcribe":
        return JSONResponse(our_answer(transcript, asked, request_id()))
    return openai_answer(transcript, asked)


class _EventStream(StreamingResponse):
    """Server-sent events; gives the place in the queue back however it ends, sent or not."""

    def __init__(self, stack: AsyncExitStack, events: AsyncIterator[bytes]) -> None:
        not_buffered = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=not_buffered)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _events(hearing: Hearing, first: Sequence[ChunkTranscript]) -> AsyncIterator[bytes]:
    """As chunks are heard. Starlette cancels it when the client goes away."""
    try:
        heard, is_first = first, True
        while heard:
            if text := delta_text(heard, first=is_first):
                yield delta_event(text)
                is_first = False
            heard = await hearing.more()
        transcript = await hearing.transcript()
    except NightscribeError as error:
        log.warning("ended in the middle of a stream: %s", type(error).__name__)
        yield error_event(refusal_of(error).body(request_id()))
        return
    _log_done(transcript)
    yield done_event(transcript)


def _log_done(transcript: Transcript) -> None:
    log.info(
        "transcribed: audio_s=%.1f speech_s=%.1f language=%s segments=%d",
        transcript.duration_s, transcript.speech_s, transcript.language, len(transcript.segments),
    )  # fmt: skip


async def _or_gone(request: Request, wanted: Awaitable[T]) -> T:
    """Waits for `wanted`, or raises ClientDisconnect as soon as the client goes away."""
    result = asyncio.ensure_future(wanted)
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        for waiting in (result, gone):
            waiting.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
