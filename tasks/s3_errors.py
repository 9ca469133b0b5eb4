"""What S3, botocore, aiohttp and the system say, as errors of ours: retryable, terminal, or an answer to the caller."""

from __future__ import annotations

import asyncio

import aiohttp
import botocore.exceptions as boto

from stt_engine.errors import AccessDenied, DestinationRefused, NightscribeError, SourceGone, StorageUnavailable


class NoSuchObject(NightscribeError):
    """404: the caller knows whether that is an error. Never leaves the rooms `tasks.storage` and `tasks.source`."""


class PreconditionFailed(NightscribeError):
    """412: If-Match or If-None-Match did not hold. Never leaves those rooms either."""


class Conflict(StorageUnavailable):
    """409: somebody else is writing the same key at this moment; the next try will tell who was first."""


class Incomplete(aiohttp.ClientError):
    """A body that has ended too soon, changed on the way, or does not come on."""


FOREIGN = (
    boto.BotoCoreError,
    boto.ClientError,
    boto.HTTPClientError,
    aiohttp.ClientError,
    OSError,
    asyncio.TimeoutError,
)
"""What a request may raise."""
_THROTTLED = frozenset(
    {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException", "TooManyRequests"}
)
_ASK_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for a store that is not AWS)"


def explain(error: BaseException, uri: str) -> NightscribeError:
    """Our error for one of botocore's, aiohttp's or the system's. Its message never holds a header or a key."""
    if isinstance(error, boto.ClientError):
        return _explain_answer(error, uri)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        return AccessDenied(f"{uri}: no S3 credentials were found; {_ASK_CREDENTIALS}")
    if isinstance(error, boto.ParamValidationError | boto.InvalidRegionError):
        return SourceGone(f"{uri} is no name that S3 can hold ({type(error).__name__}); check the bucket's name")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{uri}: {error}")
    if isinstance(error, Incomplete):
        return StorageUnavailable(f"{uri}: the store did not send it whole ({error}); try again later")
    return StorageUnavailable(f"{uri}: the store did not answer as it should ({type(error).__name__}); try again later")


def _explain_answer(error: boto.ClientError, uri: str) -> NightscribeError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{status} {code}".strip()
    if status == 412 or code == "PreconditionFailed":
        return PreconditionFailed(f"{uri}: {said}")
    if status == 409 or code in ("ConditionalRequestConflict", "OperationAborted"):
        return Conflict(f"{uri}: somebody else is writing it at this moment ({said})")
    if status == 501:
        return DestinationRefused(f"{uri}: the store knows no conditional writes ({said}); take another one for DEST")
    if code in _THROTTLED or status in (408, 429) or status >= 500:
        return StorageUnavailable(f"{uri}: the store is overloaded or down ({said}); try again later")
    if status in (401, 403):
        return AccessDenied(f"{uri}: the store refuses access ({said}); check its policy, or {_ASK_CREDENTIALS}")
    if status == 404 or code in ("NoSuchKey", "NoSuchBucket", "404"):
        return NoSuchObject(f"{uri} does not exist ({said})")
    if code == "ExpiredToken":
        return AccessDenied(f"{uri}: the session token has expired ({said}); renew AWS_SESSION_TOKEN")
    if status in (0, 200):  # an error in the body of a 200, or no status at all
        return StorageUnavailable(f"{uri}: the store gave up in the middle of its answer ({said}); try again later")
    return AccessDenied(f"{uri}: the store refuses the request ({said}); check the name and the store's settings")
