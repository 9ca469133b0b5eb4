"""The few S3 requests that Nightscribe makes, with our errors and our back-off.

They go through the client of s3fs (one connection pool, one event loop thread, credentials from the environment:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_ENDPOINT_URL), but not through its file interface:
that one takes `?` and `#` in keys for syntax, publishes a half-written object when a `with` block is left by an
exception, and holds a whole listing in memory.

No answer is believed because it looks whole: lengths are compared, and what we wrote ourselves carries its own digest.
No request lasts for ever: silence ends it, and so does a trickle.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

import s3fs
from fsspec.asyn import sync

from stt_engine.errors import UsageError
from stt_engine.types import Seconds
from tasks.backoff import with_backoff
from tasks.s3_errors import FOREIGN, Incomplete, NoSuchObject, PreconditionFailed, explain

Answer = TypeVar("Answer")

PAGE_KEYS = 1000
"""The most that S3 lists at once."""


def timeout_of(text: str) -> Seconds:
    """What NIGHTSCRIBE_S3_TIMEOUT_S says."""
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = 0.0
    if not 0.0 < timeout_s <= 3600.0:
        raise UsageError(f"NIGHTSCRIBE_S3_TIMEOUT_S={text!r}: give seconds, more than 0 and at most 3600")
    return timeout_s


TIMEOUT_S = timeout_of(os.environ.get("NIGHTSCRIBE_S3_TIMEOUT_S", "60"))
"""The longest silence, and the time in which an answer without much of a body must be complete."""
CONNECT_TIMEOUT_S = min(10.0, TIMEOUT_S)
LEAST_BYTES_PER_S = 4_000
"""A body that comes or goes slower than that is given up: the next connection may be a better one."""
MAX_CONNECTIONS = 32
READ_PIECE_BYTES = 1 << 20
_DIGEST, _MARK = "nightscribe-sha256", "nightscribe-put"
"""Metadata of every object that we write: what it must read like, and which call has written it."""

_CLIENT_CONFIG = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "read_timeout": TIMEOUT_S,
    "max_pool_connections": MAX_CONNECTIONS,
    "retries": {"mode": "standard", "total_max_attempts": 1},
    # Checksums in trailers are refused by Ceph and others that speak an older S3.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


@dataclass(frozen=True, slots=True)
class S3Object:
    key: str
    size_bytes: int
    modified_at: datetime
    """UTC, by the store's clock; whole seconds on most stores."""
    etag: str
    """Without its quotes."""


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` as (bucket, key). Nothing is decoded: `%`, `#`, `?` and `+` are parts of names."""
    scheme, _, rest = uri.partition("://")
    if scheme not in ("s3", "s3a") or not rest.partition("/")[0]:
        raise ValueError(f"{uri!r} is not of the form s3://BUCKET/KEY")
    bucket, _, key = rest.partition("/")
    return bucket, key


class S3:
    """One bucket's objects. Safe to use from several threads; never across a fork (see `connect`)."""

    def __init__(self) -> None:
        self._fs = s3fs.S3FileSystem(
            use_listings_cache=False, skip_instance_cache=True, cache_regions=False, config_kwargs=_CLIENT_CONFIG
        )

    def put(self, bucket: str, key: str, payload: bytes, *, only_if_absent: bool = False) -> bool:
        """One PUT. False when `only_if_absent` and somebody else's object is there (412).

        A PUT whose answer was lost is repeated, by us or, unseen, by aiohttp, and then meets the object that it has
        made itself: that is True. The object says whose it is.
        """
        uri, mark = f"s3://{bucket}/{key}", uuid.uuid4().hex
        condition = {"IfNoneMatch": "*"} if only_if_absent else {}
        metadata = {_DIGEST: hashlib.sha256(payload).hexdigest(), _MARK: mark}

        async def put(client: Any) -> None:
            async with asyncio.timeout(TIMEOUT_S + len(payload) / LEAST_BYTES_PER_S):
                await client.put_object(Bucket=bucket, Key=key, Body=payload, Metadata=metadata, **condition)

        try:
            self._call(uri, put)
        except PreconditionFailed:
            try:
                return bool(self._head(bucket, key).get("Metadata", {}).get(_MARK) == mark)
            except NoSuchObject:  # deleted since
                return False
        return True

    def get(self, bucket: str, key: str, *, start: int | None = None, stop: int | None = None) -> bytes:
        """The object, or its bytes `start` (included) to `stop` (excluded). Raises NoSuchObject."""
        ranged = start is not None and stop is not None
        byte_range = {"Range": f"bytes={start}-{stop - 1}"} if start is not None and stop is not None else {}

        async def get(client: Any) -> bytes:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await client.get_object(Bucket=bucket, Key=key, **byte_range)
            payload = b"".join([piece async for piece in _body(answer)])
            digest = answer.get("Metadata", {}).get(_DIGEST)
            if digest is not None and not ranged and hashlib.sha256(payload).hexdigest() != digest:
                raise Incomplete(f"{len(payload)} bytes arrived, which are not those that were written")
            return payload

        return self._call(f"s3://{bucket}/{key}", get)

    def download(self, bucket: str, key: str, *, etag: str | None, sink: Callable[[bytes], None]) -> int:
        """Streams the object into `sink` and returns its bytes. One attempt: the caller resets its sink and retries.

        Raises PreconditionFailed when the object no longer has this etag, NoSuchObject, StorageUnavailable.
        """
        condition = {"IfMatch": f'"{etag}"'} if etag else {}

        async def download(client: Any) -> int:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await client.get_object(Bucket=bucket, Key=key, **condition)
            received = 0
            async for piece in _body(answer):
                received += len(piece)
                sink(piece)
            return received

        return self._call(f"s3://{bucket}/{key}", download, retry=False)

    def head(self, bucket: str, key: str) -> S3Object | None:
        """None where there is no such object."""
        try:
            answer = self._head(bucket, key)
        except NoSuchObject:
            return None
        return S3Object(key, answer["ContentLength"], _utc(answer["LastModified"]), answer["ETag"].strip('"'))

    def _head(self, bucket: str, key: str) -> Any:
        async def head(client: Any) -> Any:
            async with asyncio.timeout(TIMEOUT_S):
                return await client.head_object(Bucket=bucket, Key=key)

        return self._call(f"s3://{bucket}/{key}", head)

    def delete(self, bucket: str, key: str) -> None:
        """No error when it is gone already."""

        async def delete(client: Any) -> None:
            async with asyncio.timeout(TIMEOUT_S):
                await client.delete_object(Bucket=bucket, Key=key)

        self._call(f"s3://{bucket}/{key}", delete)

    def list(self, bucket: str, prefix: str) -> Iterator[S3Object]:
        """Objects whose key starts with `prefix`, in the order of their UTF-8 bytes, one page in memory at a time.

        Raises NoSuchObject when the bucket does not exist.
        """
        token: dict[str, str] = {}
        while True:
            # Bound now: the closure below must not see the next page's token.
            continuation = dict(token)

            async def page(client: Any, continuation: dict[str, str] = continuation) -> Any:
                async with asyncio.timeout(TIMEOUT_S):
                    return await client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=PAGE_KEYS, **continuation)

            answer = self._call(f"s3://{bucket}/{prefix}", page)
            for entry in answer.get("Contents", ()):
                etag = entry.get("ETag", "").strip('"')
                yield S3Object(entry["Key"], entry["Size"], _utc(entry["LastModified"]), etag)
            if not answer.get("IsTruncated"):
                return
            token = {"ContinuationToken": answer["NextContinuationToken"]}

    def _call(self, uri: str, request: Callable[[Any], Awaitable[Answer]], *, retry: bool = True) -> Answer:
        async def attempt() -> Answer:
            client = await self._fs.set_session()
            return await request(client)

        def mapped() -> Answer:
            try:
                return sync(self._fs.loop, attempt)  # type: ignore[no-any-return]
            except FOREIGN as error:
                raise explain(error, uri) from error

        return with_backoff(mapped) if retry else mapped()


async def _body(answer: Any) -> AsyncIterator[bytes]:
    """The pieces of an answer's body, all of them or Incomplete."""
    received, looked_at_s, by_then = 0, asyncio.get_running_loop().time(), 0
    async with answer["Body"] as body:
        while piece := await body.read(READ_PIECE_BYTES):
            received += len(piece)
            yield piece
            now_s = asyncio.get_running_loop().time()
            if now_s - looked_at_s >= TIMEOUT_S:
                if received - by_then < LEAST_BYTES_PER_S * (now_s - looked_at_s):
                    raise Incomplete(f"only {received - by_then} bytes came in {now_s - looked_at_s:.0f} s")
                looked_at_s, by_then = now_s, received
    if received != answer["ContentLength"]:
        raise Incomplete(f"{received} of {answer['ContentLength']} bytes arrived")


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


@cache
def _connect(_pid: int, _environment: tuple[str | None, ...]) -> S3:
    return S3()


def connect() -> S3:
    """The connection of this process for the credentials in its environment.

    A process that was forked gets its own: an event loop and its sockets do not survive a fork.
    """
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION")
    endpoints = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    return _connect(os.getpid(), tuple(os.environ.get(name) for name in (*names, *endpoints)))
