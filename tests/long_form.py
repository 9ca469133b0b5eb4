"""What `make test` leaves to `make faults`, the long form of the suite.

A test, or one parameter of it, that is marked `long` runs in the long form alone; a shorter one keeps its promise in
every run. In `tests/faults`, which the long form runs whole, `longer` chooses between two sizes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

LONG_FORM = os.environ.get("LONG_FORM") == "1"
N_NIGHTS = 30
"""Of random seeds, in the long form."""

T = TypeVar("T")
long = pytest.mark.long


def longer(short: T, in_the_long_form: T) -> T:
    return in_the_long_form if LONG_FORM else short


def nights(in_every_run: Iterable[int], in_the_long_form: Iterable[int] = range(N_NIGHTS)) -> list[ParameterSet]:
    """Seeds to parametrize by: those of every run, and more of the long form."""
    always = set(in_every_run)
    return [pytest.param(seed, marks=() if seed in always else long) for seed in in_the_long_form]


def leave_out_the_long(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For `pytest_collection_modifyitems`."""
    left_out = [] if LONG_FORM else [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("long") is None]
