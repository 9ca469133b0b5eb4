"""The tables that analysts' tests read; landed once, never changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysts.calls import calls, land_calls


@pytest.fixture(scope="session")
def tables(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DEST with seven rows of six recordings (see `tests.analysts.calls`)."""
    folder = tmp_path_factory.mktemp("analysts")
    land_calls(folder / "tables", calls(samples, folder))
    return folder / "tables"
