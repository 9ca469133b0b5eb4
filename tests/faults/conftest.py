"""The source, the Prefect server and the undisturbed texts that the tests of this room share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.runs import N_FILES, Runs, said
from tests.prefect_server import PrefectServer


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    folder = tmp_path_factory.mktemp("kills") / "calls"
    folder.mkdir()
    names = [f"{language}_{number:03d}.flac" for language in ("en", "ko") for number in range(8)]
    for name in (*names, "en_long0.flac", "silence.flac"):
        shutil.copyfile(samples / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    found = PrefectServer(tmp_path_factory.mktemp("server"))
    found.start()
    yield found
    found.kill()


@pytest.fixture(scope="session")
def texts(server: PrefectServer, source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What every file says in a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = Runs(server.url, source, folder / "spool").whole(folder / "tables")
    assert done.status == 0, done.err
    found = said(folder / "tables")
    assert len(found) == N_FILES
    return found
