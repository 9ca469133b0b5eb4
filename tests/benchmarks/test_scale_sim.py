"""The simulation behind docs/scale.md: linear while everything is fed, and it bends where arithmetic says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale_sim import FILES_ALONE_UP_TO, Found, Site, main, simulate
from benchmarks.simulated_crew import Model
from tasks.night_terms import NightOptions
from tasks.split_groups import LARGEST_GROUP, SMALL_GROUP_BYTES

MODEL = Model()
FILES = 100_000
CEILING = MODEL.file_s / (MODEL.windows * MODEL.window_s)
"""Times real time that one GPU hears when it never waits."""


def found(model: Model = MODEL, **site: int) -> Found:
    return simulate(model, Site(**site), files=FILES, sample=3_000)


def test_twice_the_gpus_hear_twice_as_much_while_they_are_fed() -> None:
    one, two, four = (found(gpus=gpus, largest_group=16) for gpus in (1, 2, 4))
    assert one.rtfx == pytest.approx(CEILING, rel=0.06)
    assert two.rtfx == pytest.approx(2 * one.rtfx, rel=0.06)
    assert four.rtfx == pytest.approx(4 * one.rtfx, rel=0.06)
    assert {one.full, two.full, four.full} == {"GPU"}


def test_with_too_few_cores_the_speed_is_theirs() -> None:
    cores = 2  # 1,400 times real time, and a GPU hears 2,700
    few = found(gpus=2, cores_per_gpu=cores, largest_group=16)
    assert few.rtfx == pytest.approx(2 * cores * MODEL.splits_rtfx, rel=0.06)
    assert few.full == "cores"
    assert found(gpus=2, cores_per_gpu=cores // 2, largest_group=16).rtfx == pytest.approx(few.rtfx / 2, rel=0.06)


def test_one_flow_is_full_before_64_gpus_are_and_two_reach_twice_as_far() -> None:
    slow = replace(MODEL, finish_file_s=0.02)  # so that few files show it: 50 a second, less what else it does
    one, more, flows = found(slow, gpus=8), found(slow, gpus=16), found(slow, gpus=16, flows=2)
    assert one.full == more.full == "flow"
    assert one.rtfx < 50 * MODEL.file_s
    assert more.rtfx == pytest.approx(one.rtfx, rel=0.1)
    assert flows.rtfx == pytest.approx(2 * one.rtfx, rel=0.1)


def test_the_server_is_named_when_task_runs_want_a_core_of_it() -> None:
    assert "server" not in found(gpus=2).full
    assert "server" in found(gpus=4, largest_group=1, files_alone_up_to=FILES, most_windows=64).full


def test_a_night_simulated_is_as_long_as_the_measured_one() -> None:
    """benchmarks/RESULTS-gpu.md: 11.1 hours on one GPU with 16 cores, two workers 2,463 times real time, one 2,157."""
    measured = Model(file_s=83.0, chunk_s=27.6)
    two = simulate(measured, Site(gpus=1, cores_per_gpu=16), files=480, sample=480)
    one = simulate(
        replace(measured, window_s=0.0078), Site(gpus=1, cores_per_gpu=16, workers_per_gpu=1), files=480, sample=480
    )
    assert two.rtfx == pytest.approx(2_463, rel=0.1)
    assert one.rtfx == pytest.approx(2_157, rel=0.1)


def test_what_is_a_constant_of_the_code_is_taken_from_there() -> None:
    usual = Site(gpus=1)
    options = NightOptions.__dataclass_fields__
    assert (usual.files_alone_up_to, usual.group_bytes) == (
        options["files_alone_up_to"].default,
        options["group_bytes"].default,
    )
    assert usual.largest_group == LARGEST_GROUP
    assert usual.group_size(FILES_ALONE_UP_TO, MODEL.file_bytes) == 1
    assert usual.group_size(FILES_ALONE_UP_TO + 1, SMALL_GROUP_BYTES) == 2
    assert usual.group_size(10**6, MODEL.file_bytes) == LARGEST_GROUP


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--hours", "10", "--gpus", "1", "8", "--flows", "1", "4"])
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == 14
    assert [row.split(" | ")[1:3] for row in rows] == [["1", "1"], ["8", "1"], ["8", "4"]]


def test_the_page_shows_what_the_simulation_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Its shortest lines; after a change of the dispatcher print all of them again."""
    main(["--hours", "1000", "--gpus", "8", "64"])
    page = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text()
    for line in capsys.readouterr().out.splitlines():
        assert f"\n{line}\n" in page


def test_several_values_of_an_option_are_lines_that_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--hours", "10", "--gpus", "1", "--cores-per-gpu", "1", "8"])
    few, usual = (row.split(" | ") for row in capsys.readouterr().out.splitlines()[2:])
    assert (few[-1], usual[-1]) == ("cores_per_gpu 1 |", "- |")
    assert float(few[3].replace(",", "")) < float(usual[3].replace(",", ""))
