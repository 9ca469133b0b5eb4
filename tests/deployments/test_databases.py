"""A Prefect server on either database, a process worker, a night: as the commands of compose.yaml, run natively.

In every run on SQLite, since conftest.py has its site on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.deployments.postgres import running_postgres
from tests.deployments.site import landed, prefect_site, process_worker
from tests.long_form import long


@contextmanager
def no_postgres() -> Iterator[None]:
    yield None


@pytest.mark.parametrize(
    ("database", "keeps_sqlite"),
    [pytest.param(running_postgres, False, marks=[pytest.mark.postgres, long]), (no_postgres, True)],
    ids=["postgresql", "sqlite"],
)
def test_a_night(
    tmp_path: Path, inbox: Path, database: Callable[[], AbstractContextManager[str | None]], keeps_sqlite: bool
) -> None:
    settings = {
        "NIGHTSCRIBE_SOURCE": str(inbox),
        "NIGHTSCRIBE_DEST": str(tmp_path / "tables"),
        "NIGHTSCRIBE_MODEL": "fixture",
        "NIGHTSCRIBE_DEVICE": "cpu",
    }
    with database() as address, prefect_site(tmp_path, settings, database_url=address) as site:
        assert site.api("GET", "/health") is True
        site.deploy()
        with process_worker(site, tmp_path / "worker.log"):
            run = site.start_run("transcribe-new-audio/nightly", settle_seconds=0)
            state = site.final_state(run)
        assert state["type"] == "COMPLETED", state
        assert (tmp_path / "prefect" / "prefect.db").exists() is keeps_sqlite
        assert len(landed(tmp_path / "tables")) == 3
