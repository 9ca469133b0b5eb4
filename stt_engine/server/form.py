"""A multipart form, read as it comes in: the recording to a file, its bytes counted, nothing held in memory.

Refused while it comes in: too many bytes (413), a sender that stands still or trickles (408), no form (400, 415).
A file's name is text for messages; no path is ever made of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from stt_engine.server.problems import Refused, bad_parameter
from stt_engine.types import Seconds

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_FIELD_BYTES = 64 * 1024
"""Of all fields beside the file together."""
_MAX_PARTS = 64
_FORM_OVERHEAD_BYTES = _MAX_FIELD_BYTES + 64 * 1024
_LEAST_BYTES_PER_S = 1024
"""A sender that is slower than this on average keeps a place in the queue for nothing."""


@dataclass(frozen=True, slots=True)
class Form:
    """What came: the recording on disk, and every other field with its values."""

    recording: Path
    size_bytes: int
    file_name: str
    fields: Mapping[str, tuple[str, ...]]


async def receive_form(request: Request, folder: Path, *, max_file_bytes: int, idle_s: Seconds) -> Form:
    """Raises Refused; ClientDisconnect where the sender goes away."""
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    boundary = parameters.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused(415, "not_a_form", "send multipart/form-data with the recording in the field `file`")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_file_bytes + _FORM_OVERHEAD_BYTES:
        raise _too_large(max_file_bytes)
    with (folder / "upload").open("wb") as file:
        parts = _Parts(file, max_file_bytes)
        try:
            parser = MultipartParser(boundary, parts.callbacks())
            await _feed(request, parser, idle_s)
        except FormParserError as error:
            raise Refused(400, "malformed_form", "the multipart form is malformed") from error
    if not parts.ended:
        raise Refused(400, "malformed_form", "the multipart form ends before its last boundary")
    if not parts.file_seen:
        raise bad_parameter("file", "is missing; send the recording in this field")
    return Form(folder / "upload", parts.file_bytes, parts.file_name, parts.texts())


async def _feed(request: Request, parser: MultipartParser, idle_s: Seconds) -> None:
    loop = asyncio.get_running_loop()
    started_s, n_bytes = loop.time(), 0
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), idle_s)
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body: bytes = message.get("body", b"")
        n_bytes += len(body)
        parser.write(body)
        if not message.get("more_body", False):
            return
        elapsed_s = loop.time() - started_s
        if elapsed_s > idle_s and n_bytes < elapsed_s * _LEAST_BYTES_PER_S:
            raise _too_slow()


@dataclass(slots=True)
class _Parts:
    """The parser's callbacks, and what they have gathered."""

    file: BinaryIO
    max_file_bytes: int
    file_bytes: int = 0
    file_seen: bool = False
    file_name: str = "upload"
    ended: bool = False
    _fields: list[tuple[str, bytearray]] = field(default_factory=list)
    _field_bytes: int = 0
    _n_parts: int = 0
    _header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    _disposition: bytes = b""
    _in_file: bool = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }

    def texts(self) -> dict[str, tuple[str, ...]]:
        texts: dict[str, tuple[str, ...]] = {}
        for name, raw in self._fields:
            try:
                texts[name] = (*texts.get(name, ()), raw.decode())
            except UnicodeDecodeError:
                raise bad_parameter(name, "is no UTF-8") from None
        return texts

    def _part_begin(self) -> None:
        self._n_parts += 1
        if self._n_parts > _MAX_PARTS:
            raise Refused(422, "too_many_fields", f"the form has more than {_MAX_PARTS} fields")
        self._disposition = b""
        self._header[0].clear()
        self._header[1].clear()

    def _header_end(self) -> None:
        if bytes(self._header[0]).lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header[0].clear()
        self._header[1].clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        if not name:
            raise Refused(400, "malformed_form", "a part of the form has no name")
        self._in_file = name == "file"
        if self._in_file:
            if self.file_seen:
                raise bad_parameter("file", "is there twice; send one recording a request")
            self.file_seen = True
            self.file_name = _harmless(options.get(b"filename", b"").decode(errors="replace"))
        elif b"filename" in options:
            raise bad_parameter(_harmless(name), "is a file; only the field `file` may be one")
        else:
            self._fields.append((name, bytearray()))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.file_bytes += end - start
            if self.file_bytes > self.max_file_bytes:
                raise _too_large(self.max_file_bytes)
            self.file.write(data[start:end])
            return
        self._field_bytes += end - start
        if self._field_bytes > _MAX_FIELD_BYTES:
            raise bad_parameter(self._fields[-1][0], f"the fields hold more than {_MAX_FIELD_BYTES} bytes")
        self._fields[-1][1].extend(data[start:end])

    def _end(self) -> None:
        self.ended = True


def _harmless(name: str) -> str:
    """The last part of a path, printable and short."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c if c.isprintable() else "?" for c in last)[-120:] or "upload"


def _too_large(max_file_bytes: int) -> Refused:
    return Refused(
        413, "too_large", f"file: is larger than the limit of {max_file_bytes} bytes; cut or compress it", param="file"
    )


def _too_slow() -> Refused:
    return Refused(408, "upload_too_slow", "the upload stood still for too long; send it again")
