"""Two servers: one as it comes, one with narrow limits and a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.running import Running, running_service

KEY = "a-key-for-the-tests"
MAX_UPLOAD_BYTES = 6_000_000
MAX_AUDIO_S = 600


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_service(
        tmp_path_factory.mktemp("server"), max_upload_bytes=MAX_UPLOAD_BYTES, max_audio_seconds=MAX_AUDIO_S
    ) as running:
        yield running


@pytest.fixture(scope="session")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_service(
        tmp_path_factory.mktemp("strict"),
        api_key=KEY,
        max_queue=2,
        upload_idle_seconds=1.5,
        header_seconds=1,
        model_copies=1,
    ) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def clip(samples: Path) -> bytes:
    """2.6 s: how can i help you next week."""
    return (samples / "en_000.flac").read_bytes()


CLIP_TEXT = "how can i help you next week"
