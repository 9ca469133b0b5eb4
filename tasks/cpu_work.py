"""What a CPU worker does with a file: fetch, decode, find speech, cut, spool. No Prefect here."""

from __future__ import annotations

import time

from stt_engine.errors import BackendUnavailable, NightscribeError, UsageError
from stt_engine.speech_regions import VadOptions
from stt_engine.split import split_audio
from stt_engine.types import AudioInfo
from stt_engine.vad import SpeechDetector
from tasks.failure import failure_of
from tasks.fetch import confirm_unchanged, fetch
from tasks.orders import SplitOrder, SplitOutcome
from tasks.runners.lanes import on_cpu_worker
from tasks.runners.worker import next_step
from tasks.spool import fetch_folder, write_chunks
from tasks.types import AudioFile, SplitFile


def get_ready(device: str, _arguments: None) -> None:
    """A worker's loader: the voice activity model is read once, before the first file."""
    del device
    SpeechDetector(VadOptions())


@on_cpu_worker
def split_order(order: SplitOrder) -> tuple[SplitOutcome, ...]:
    """Split every file of the order. With `alone` a failure is raised; else it is one of the outcomes."""
    if order.alone:
        return tuple(split_file(file, order) for file in order.files)
    outcomes: list[SplitOutcome] = []
    for file in order.files:
        next_step()
        try:
            outcomes.append(split_file(file, order))
        except (UsageError, BackendUnavailable):
            raise  # no file's fault, and true for every file
        except NightscribeError as error:
            outcomes.append(failure_of(file, error))
    return tuple(outcomes)


def split_file(file: AudioFile, order: SplitOrder) -> SplitFile:
    """One file from its store into chunks in the spool.

    Raises:
        AudioError, SourceGone, AccessDenied: terminal, for this file.
        SourceChanged, StorageUnavailable: retryable.
    """
    started = time.perf_counter()
    with fetch_folder(order.spool_uri) as folder:
        fetched = fetch(file, folder, max_bytes=order.options.limits.max_bytes)
        fetch_s = time.perf_counter() - started
        splitter = split_audio(fetched.path, file_id=file.file_id, name=file.key, options=order.options)
        chunks = write_chunks(order.spool_uri, file.file_id, splitter)
        info: AudioInfo = splitter.info
        confirm_unchanged(file)
    spent = dict(splitter.timings_s)
    spool_s = max(0.0, time.perf_counter() - started - fetch_s - sum(spent.values()))
    return SplitFile(
        file=file,
        info=info,
        content_sha256=fetched.content_sha256,
        speech_s=splitter.speech_s,
        chunks=chunks,
        timings_s={"fetch": fetch_s, **spent, "spool": spool_s},
    )
