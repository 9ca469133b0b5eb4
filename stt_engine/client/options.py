"""How a folder is sent."""

from __future__ import annotations

from dataclasses import dataclass

from stt_engine.types import Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    url: str = "http://127.0.0.1:8003"
    api_key: str | None = None
    language: str | None = None
    backend: str | None = None
    parallel: int = 8
    """Requests at a time; the server makes device batches of them."""
    attempts: int = 6
    """At each file; those after the first wait longer and longer, and as long as Retry-After says."""
    timeout_s: Seconds = 300.0
    """That one answer may take."""
