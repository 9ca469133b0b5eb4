"""`nightscribe run --dry-run`: what would be done, how many hours that may be, and what it may cost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath

from rich.markup import escape

from flows.console import results_table, stderr, stdout
from stt_engine.types import Seconds
from tasks.claim import plan_only
from tasks.live_parts import LiveParts, with_live_parts
from tasks.parts import read_columns
from tasks.prepare import PreparedRun
from tasks.report import audio_length
from tasks.run_record import read_records
from tasks.storage import Store, open_store
from tasks.types import AudioFile

ASSUMED_BYTES_PER_S: Mapping[str, float] = {
    "wav": 32_000,  # 16 kHz, 16 bit
    "flac": 16_000,
    "mp3": 16_000,  # 128 kbit/s
    "m4a": 16_000,
    "mp4": 125_000,
    "ogg": 8_000,
    "opus": 4_000,
    "webm": 8_000,
    "amr": 1_600,
}
"""Until DEST has landed files of that suffix, whose own average is taken then."""
_OTHER_BYTES_PER_S = 16_000.0


def show_plan(run: PreparedRun, *, now: datetime, as_json: bool) -> None:
    """The plan on stdout; nothing is claimed or written."""
    store = open_store(run.settings.dest)
    plan = plan_only(run, store, now=now)
    rates = _bytes_per_s(store)
    estimated = [(file, _duration_s(file, rates)) for file in plan.files]
    total_s = sum(duration_s for _, duration_s in estimated)
    rtfx = _past_rtfx(store)
    gpu_hours = total_s / rtfx / 3600 if rtfx else None
    price = run.settings.advanced.gpu_price_per_hour * len(run.devices)
    cost = gpu_hours * price if gpu_hours is not None and price else None
    if as_json:
        figures = {
            "discovered": plan.discovered,
            "already_done": plan.already_done,
            "planned": len(estimated),
            "estimated_audio_hours": round(total_s / 3600, 4),
            "estimated_run_hours": None if gpu_hours is None else round(gpu_hours, 4),
            "estimated_cost": None if cost is None else round(cost, 2),
            "dest": run.settings.dest,
            "files": [
                {
                    "key": file.key,
                    "size_bytes": file.size_bytes,
                    "modified_at": file.modified_at.isoformat(),
                    "estimated_audio_seconds": round(duration_s, 1),
                }
                for file, duration_s in estimated
            ],
        }
        print(json.dumps(figures, ensure_ascii=False))  # noqa: T201 - the result
        return
    table = results_table("file", "MB", "modified", "about")
    for file, duration_s in estimated:
        table.add_row(
            escape(file.key),
            f"{file.size_bytes / 1e6:.1f}",
            f"{file.modified_at:%Y-%m-%d %H:%M}",
            f"{duration_s:.0f} s",
        )
    if estimated:
        stdout.print(table)
    stderr.print(f"{plan.discovered} files found, {plan.already_done} done already, {len(estimated)} would be done")
    stderr.print(f"about {audio_length(total_s)} of audio, judged by size")
    if gpu_hours is None:
        stderr.print("how long it takes is told from the first run on; its speed is kept in DEST/_runs")
    else:
        stderr.print(f"about {gpu_hours:.2f} h at {rtfx:.0f} times real time, as in the last runs")
    if cost is not None:
        stderr.print(f"about {cost:.2f} at {price:.2f} an hour for {len(run.devices)} devices")
    elif not price:
        stderr.print("for the cost set --gpu-price-per-hour")


def _suffix(key: str) -> str:
    return PurePosixPath(key).suffix.lower().lstrip(".")


def _bytes_per_s(store: Store) -> Mapping[str, float]:
    columns = ("source_uri", "size_bytes", "duration_s")

    def read(live: LiveParts) -> Mapping[str, float]:
        sizes: defaultdict[str, float] = defaultdict(float)
        durations_s: defaultdict[str, float] = defaultdict(float)
        for table in read_columns(store, live.transcripts, columns):
            for uri, size, duration_s in zip(*(table[name].to_pylist() for name in columns), strict=True):
                if duration_s:
                    sizes[_suffix(uri)] += size
                    durations_s[_suffix(uri)] += duration_s
        return {suffix: sizes[suffix] / durations_s[suffix] for suffix in sizes}

    return with_live_parts(store, read)


def _duration_s(file: AudioFile, rates: Mapping[str, float]) -> Seconds:
    suffix = _suffix(file.key)
    return file.size_bytes / (rates.get(suffix) or ASSUMED_BYTES_PER_S.get(suffix, _OTHER_BYTES_PER_S))


def _past_rtfx(store: Store) -> float | None:
    """The median speed of the last ten runs that did anything."""
    speeds = sorted(r.counts["rtfx"] for r in read_records(store)[-10:] if r.counts.get("rtfx"))
    return speeds[len(speeds) // 2] if speeds else None
