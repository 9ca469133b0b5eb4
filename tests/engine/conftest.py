"""Models to convert, to serve, and to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def plain_model(fixture_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model without its CTranslate2 form."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    shutil.copytree(fixture_model, folder, ignore=shutil.ignore_patterns("ct2"))
    return folder


@pytest.fixture
def spoilt_model(plain_model: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    return Path(shutil.copytree(plain_model, tmp_path / "ours"))
