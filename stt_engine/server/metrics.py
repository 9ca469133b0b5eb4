"""What Prometheus may ask: queue, batch sizes, speed, memory, errors by kind. One registry for each app."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stt_engine.server.housekeeping import resident_bytes

ROUTES = ("/transcribe", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/models")


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        r = self._registry
        self._requests = Counter("stt_requests", "Requests answered.", ["route", "status"], registry=r)
        self._latency_s = Histogram(
            "stt_request_seconds", "From the first byte in to the last byte out.", ["route"], registry=r,
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 1200),
        )  # fmt: skip
        self._errors = Counter("stt_errors", "Requests refused or failed, by kind.", ["kind"], registry=r)
        self._in_flight = Gauge("stt_requests_in_flight", "Requests under way.", registry=r)
        self._queue = Gauge("stt_queue_chunks", "Chunks that wait for a device batch.", registry=r)
        self._batch_windows = Histogram(
            "stt_batch_windows", "Windows in a device batch.", registry=r, buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )
        self._audio_s = Counter("stt_audio_seconds", "Seconds of audio in chunks that were decoded.", registry=r)
        self._busy_s = Counter("stt_device_busy_seconds", "Wall seconds that the model was at work.", registry=r)
        self._rtfx = Gauge("stt_rtfx", "Audio seconds per second of the model's work, last batch.", registry=r)
        Gauge("stt_resident_bytes", "Resident memory of the server.", registry=r).set_function(
            lambda: float(resident_bytes() or 0)
        )
        self._splitters_bytes = Gauge(
            "stt_splitters_resident_bytes", "Resident memory of the processes that decode uploads.", registry=r
        )
        Gauge("stt_device_memory_bytes", "Device memory that torch holds; 0 without it.", registry=r).set_function(
            _torch_bytes
        )

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        queue_chunks: Callable[[], float],
        splitters_bytes: Callable[[], float],
    ) -> None:
        self._splitters_bytes.set_function(splitters_bytes)
        self._in_flight.set_function(in_flight)
        self._queue.set_function(queue_chunks)

    def request(self, path: str, status: int, wall_s: float) -> None:
        route = next((known for known in ROUTES if path == known), "other")
        self._requests.labels(route, str(status)).inc()
        self._latency_s.labels(route).observe(wall_s)

    def error(self, kind: str) -> None:
        self._errors.labels(kind).inc()

    def batch(self, n_windows: int, audio_s: float, wall_s: float) -> None:
        self._batch_windows.observe(n_windows)
        self._audio_s.inc(audio_s)
        self._busy_s.inc(wall_s)
        self._rtfx.set(audio_s / wall_s if wall_s else 0.0)

    def page(self) -> bytes:
        return generate_latest(self._registry)


def _torch_bytes() -> float:
    torch: Any = sys.modules.get("torch")
    return float(torch.cuda.memory_reserved()) if torch is not None and torch.cuda.is_initialized() else 0.0
