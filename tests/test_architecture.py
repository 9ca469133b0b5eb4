"""Who may import whom, and how long a file may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"stt_engine": (), "tasks": ("stt_engine",), "flows": ("stt_engine", "tasks")}
FOREIGN = {
    "stt_engine": {"prefect", "fsspec", "s3fs", "pyarrow", "typer", "rich"},
    "tasks": {"typer", "rich"},
    "flows": set[str](),
}
"""What a room knows nothing of."""
WITHOUT_PREFECT = (
    "tasks/cpu_work.py",
    "tasks/gpu_work.py",
    "tasks/night.py",
    "tasks/land.py",
    "tasks/plan.py",
    "tasks/compact.py",
    "tasks/forget.py",
)
"""Compute and decisions: run, and tested, without Prefect."""


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_downwards(room: str) -> None:
    allowed = {room, *ROOMS[room]}
    for path in modules(room):
        tops = {name.partition(".")[0] for name in imported(path)}
        assert tops & set(ROOMS) <= allowed, f"{path.relative_to(ROOT)} imports upwards"
        assert not tops & FOREIGN[room], f"{path.relative_to(ROOT)} knows too much"


@pytest.mark.parametrize("entry", ["transcribe_new_audio", "backfill", "compact", "forget"])
def test_nothing_but_the_command_line_imports_flows(entry: str) -> None:
    assert not any(name.startswith("flows") for name in imported(ROOT / "flows" / f"{entry}.py")), (
        "Prefect loads the flow under its bare stem: what it imports from flows exists twice"
    )


@pytest.mark.parametrize("name", WITHOUT_PREFECT)
def test_compute_knows_no_prefect(name: str) -> None:
    seen: set[Path] = set()
    waiting = [ROOT / name]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imported(path):
            assert module.partition(".")[0] != "prefect", f"{name} reaches Prefect through {path.relative_to(ROOT)}"
            for candidate in (ROOT / f"{module.replace('.', '/')}.py", ROOT / module.replace(".", "/") / "__init__.py"):
                if candidate.exists():
                    waiting.append(candidate)


def test_files_stay_small() -> None:
    lengths = {path: len(path.read_text().splitlines()) for room in ROOMS for path in modules(room)}
    too_long = {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > 450}
    assert not too_long, too_long
    assert sum(lines > 300 for lines in lengths.values()) <= len(lengths) // 10
