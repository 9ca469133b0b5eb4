"""For tests of the task runner: Prefect in this process, and in children, talks to the session's server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest


@pytest.fixture
def prefect_server(prefect_url: str) -> Iterator[Mapping[str, str]]:
    """Environment variables that let a child process find it; this process uses it already."""
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_url}):
        yield {**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)}
