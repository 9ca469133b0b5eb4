"""What every room's tests share. The environment is set before anything of ours, or of the libraries, is imported."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Everything that a test leaves behind goes here: model cache, the Hub's cache, Prefect's database.
SCRATCH = Path(tempfile.mkdtemp(prefix="nightscribe-tests-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)

for name in [name for name in os.environ if name.startswith(("NIGHTSCRIBE_", "AWS_", "HF_", "PREFECT_"))]:
    del os.environ[name]
os.environ |= {
    "NIGHTSCRIBE_CACHE_DIR": str(SCRATCH / "nightscribe"),
    "XDG_CACHE_HOME": str(SCRATCH / "cache"),
    "HF_HOME": str(SCRATCH / "hub"),
    # No test reaches the network; those that fetch bring a Hub of their own.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    # Ceph's gateway and moto answer 411 to the newest checksums of some clients.
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "PREFECT_HOME": str(SCRATCH / "prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Two torch threads on two shared cores take twice as long a step as one.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Of openai-whisper's alignment, whose first call sets how many threads torch has from then on.
    "NUMBA_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

import pytest  # noqa: E402

from tests.long_form import leave_out_the_long  # noqa: E402

FILES = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def fixture_model() -> Path:
    """The built-in model: Hugging Face format, with its CTranslate2 form in `ct2/`."""
    from stt_engine.models import resolve

    return resolve("fixture")


@pytest.fixture(scope="session")
def samples() -> Path:
    """Synthesised speech that the built-in model knows, silence and noise; texts and times in reference.jsonl."""
    return FILES / "samples"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Real recordings, for decoding and voice activity; texts and licences in reference.jsonl."""
    return FILES / "recordings"


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 sentences a language that the built-in model was never trained on, made as `samples` were (mark: espeak)."""
    from tests.synthesis.sentences import write_held_out

    return write_held_out(tmp_path_factory.mktemp("held-out"), 100).parent


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The one Prefect server that this process talks to: its workers for events and logs keep to their first one."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    from tests.prefect_server import running_server

    with running_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url
        APILogWorker.drain_all()
        EventsWorker.drain_all()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_out_the_long(config, items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need a part of the operating system: skipped where it is missing, but never in CI."""
    missing = None
    if item.get_closest_marker("ceph"):
        from tests.s3.gateway import missing_binaries

        missing = missing_binaries()
    if item.get_closest_marker("espeak"):
        from tests.synthesis.espeak import missing_library

        missing = missing or missing_library()
    if item.get_closest_marker("browser"):
        from tests.deployments.chromium import missing_browser

        missing = missing or missing_browser()
    if item.get_closest_marker("postgres"):
        from tests.deployments.postgres import missing_binaries as missing_postgres

        missing = missing or missing_postgres()
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
