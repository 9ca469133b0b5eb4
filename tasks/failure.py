"""From an exception to the failure of one file."""

from __future__ import annotations

from stt_engine.errors import NightscribeError
from tasks.redaction import redacted
from tasks.types import AudioFile, FileFailure, FileResult


def failure_of(file: AudioFile, error: BaseException, attempts: int = 1) -> FileFailure:
    """Any exception as the failure of one file. What we did not foresee is retryable: a mend must find it again."""
    foreseen = isinstance(error, NightscribeError)
    message = redacted(str(error) if foreseen else f"{file.key}: unforeseen {type(error).__name__}: {error}")
    return FileFailure(
        file=file,
        error_type=type(error).__name__,
        error_message=message,
        retryable=error.retryable if isinstance(error, NightscribeError) else True,
        attempts=attempts,
    )


def row_of(failure: FileFailure) -> FileResult:
    """What the transcripts table says about a file that has failed for good."""
    return FileResult(
        file=failure.file,
        status="failed",
        attempts=failure.attempts,
        info=failure.info,
        content_sha256=failure.content_sha256,
        error_type=failure.error_type,
        error_message=failure.error_message,
        warnings=failure.info.warnings if failure.info else (),
    )
