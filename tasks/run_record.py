"""What a run leaves behind in `_runs/RUN_ID.json`, and from it and the tables: what failed, why, what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from stt_engine.errors import DestinationRefused
from tasks.live_parts import LiveParts, with_live_parts
from tasks.newer import refuse_newer
from tasks.parts import read_columns
from tasks.storage import NotStored, Store

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """One file without a transcript."""

    uri: str
    version: str
    error_type: str
    message: str
    retryable: bool
    """True: the next run takes it up by itself. False: it has a row with status "failed"."""
    run_id: str
    failed_at: datetime

    @property
    def what_to_do(self) -> str:
        return advice_for(self.error_type, retryable=self.retryable)


def advice_for(error_type: str, *, retryable: bool = False) -> str:
    """What an operator does about it."""
    advice = _ADVICE.get(error_type)
    return advice or (
        "run again; the file is planned anew"
        if retryable
        else "look at the file, then run with --force and a --pattern for it alone"
    )


_ADVICE: Mapping[str, str] = {
    "EmptyFile": "the file has no bytes: upload it again, the new version is taken up by itself",
    "NotAudio": "not a recording, or one that no decoder opens: convert it, or move it out of SOURCE",
    "NoAudioStream": "a video without sound: move it out of SOURCE",
    "CorruptAudio": "nothing of it decodes: upload it again, the new version is taken up by itself",
    "AudioTooLarge": "over a limit: cut the file, or raise the limit and run with --force and a --pattern for it alone",
    "MemoryLimitExceeded": "an odd or damaged file: convert it (e.g. to flac) and upload it again",
    "PoisonousAudio": "it crashes the decoder or the model: convert it (e.g. to flac) and upload it again",
    "AccessDenied": "give the run the right to read it, then run with --force and a --pattern for it alone",
    "SourceGone": "the file was deleted: nothing to do, or upload it again",
    "SourceChanged": "it was still being written: the next run takes it up",
    "StorageUnavailable": "the store failed: run again when it answers",
    "WorkerDied": "run again; if it stays, look at the machine's memory and logs",
    "DeadlineExceeded": "look at the device; run again, or raise the deadline",
    "DeviceOutOfMemory": "run again with a smaller device batch or fewer GPU workers",
    "DeviceFailed": "look at the device (nvidia-smi), then run again",
}


@dataclass(frozen=True, slots=True)
class RunRecord:
    run_id: str
    started_at: datetime
    ended_at: datetime | None
    source: str
    dest: str
    options: Mapping[str, str]
    """As given, without secrets."""
    options_hash: str
    counts: Mapping[str, float]
    """By the names of `nightscribe run --json`."""
    failures: tuple[Failure, ...] = ()
    """Those that are left for the next run."""
    versions: Mapping[str, str] = field(default_factory=dict)


def save_record(store: Store, record: RunRecord) -> str:
    """Writes the record, over an earlier one of the same run. Returns its URI."""
    path = f"_runs/{record.run_id}.json"
    store.replace(path, json.dumps(_to_json(record), ensure_ascii=False, indent=1).encode())
    return store.uri_of(path)


def read_record(store: Store, run_id: str) -> RunRecord | None:
    """None where there is no such run. Raises DestinationRefused naming a record that cannot be read."""
    path = f"_runs/{run_id}.json"
    try:
        document = json.loads(store.read(path))
        refuse_newer(store.uri_of(path), "format", document["format"], FORMAT)
        return _from_json(document)
    except NotStored:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DestinationRefused(f"{store.uri_of(path)} is no readable run record; delete it to go on") from error


def read_records(store: Store) -> list[RunRecord]:
    """All of them, oldest first."""
    names = [stored.path.removeprefix("_runs/").removesuffix(".json") for stored in store.list("_runs")
             if stored.path.endswith(".json")]  # fmt: skip
    records = [record for record in (read_record(store, name) for name in names) if record is not None]
    return sorted(records, key=lambda record: (record.started_at, record.run_id))


def failures(store: Store) -> list[Failure]:
    """What has no transcript today, newest first: each uri by its latest row if that says failed, else by the latest
    run record that left it, unless a row has come since."""
    latest = with_live_parts(store, lambda live: _latest_rows(store, live))
    left: dict[str, Failure] = {}
    for record in read_records(store):
        for failure in record.failures:
            left[failure.uri] = failure
    for uri, (moment, failed) in latest.items():
        if uri not in left or left[uri].failed_at <= moment:
            left.pop(uri, None)
            if failed is not None:
                left[uri] = failed
    return sorted(left.values(), key=lambda failure: (failure.failed_at, failure.uri), reverse=True)


_COLUMNS = ("source_uri", "source_version", "status", "error_type", "error_message", "run_id", "transcribed_at")


def _latest_rows(store: Store, live: LiveParts) -> dict[str, tuple[datetime, Failure | None]]:
    """uri -> when its newest row was landed, and the failure if it is one."""
    latest: dict[str, tuple[datetime, Failure | None]] = {}
    for table in read_columns(store, live.transcripts, _COLUMNS):
        columns = (table[name].to_pylist() for name in _COLUMNS)
        for uri, version, status, error_type, message, run_id, moment in zip(*columns, strict=True):
            if uri in latest and latest[uri][0] > moment:
                continue
            failed = status == "failed"
            failure = Failure(uri, version, error_type or "", message or "", False, run_id, moment) if failed else None
            latest[uri] = (moment, failure)
    return latest


def _to_json(record: RunRecord) -> dict[str, Any]:
    document = {"format": FORMAT} | asdict(record)
    document["started_at"] = record.started_at.isoformat()
    document["ended_at"] = record.ended_at.isoformat() if record.ended_at else None
    document["failures"] = [
        asdict(failure) | {"failed_at": failure.failed_at.isoformat(), "what_to_do": failure.what_to_do}
        for failure in record.failures
    ]
    return document


def _from_json(document: dict[str, Any]) -> RunRecord:
    if document.pop("format") != FORMAT:
        raise ValueError("another format")
    document["started_at"] = datetime.fromisoformat(document["started_at"])
    document["ended_at"] = datetime.fromisoformat(document["ended_at"]) if document["ended_at"] else None
    if not isinstance(document["counts"], dict):
        raise ValueError("no counts")
    document["failures"] = tuple(_failure_from_json(failure) for failure in document["failures"])
    return RunRecord(**document)


def _failure_from_json(document: dict[str, Any]) -> Failure:
    document.pop("what_to_do")
    return Failure(**document | {"failed_at": datetime.fromisoformat(document["failed_at"])})
