"""Thousands of damaged recordings through probe, decode, split and landing: one row each, and the night goes on."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest

import stt_engine.errors
from stt_engine.decode import AudioLimits
from stt_engine.errors import AudioError
from tasks.storage import open_store
from tests.faults.mutants import Seed, seeds, write_mutants
from tests.faults.split_crew import split_night
from tests.flows.conftest import CommandLine
from tests.flows.tables import rows
from tests.long_form import long, longer

N_MUTANTS = longer(144, 3_168)
N_IN_A_WHOLE_NIGHT = 144
DEADLINE_S = 60.0
FOR_GOOD = {
    name
    for name in vars(stt_engine.errors)
    if isinstance(found := vars(stt_engine.errors)[name], type) and issubclass(found, AudioError)
}
"""Kinds of failure that are the file's own."""


@pytest.fixture(scope="module")
def undamaged(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return seeds(samples / "en_009.flac", tmp_path_factory.mktemp("seeds"))


def check_rows(dest: Path, names: list[str]) -> Counter[str]:
    """One row for each, and every row says what a reader can use. Returns how the files ended."""
    found = rows(dest)
    assert set(found) == set(names)
    for name, row in found.items():
        if row["status"] == "failed":
            assert row["error_type"] in FOR_GOOD, (name, row["error_message"])
            assert name in row["error_message"], row["error_message"]
        else:
            assert math.isfinite(row["duration_s"]) and 0 <= row["duration_s"] <= AudioLimits().max_duration_s, name
            assert 0 <= row["speech_s"] <= row["duration_s"] + 0.1, (name, row["speech_s"], row["duration_s"])
    return Counter(row["error_type"] or ("warned" if row["warnings"] else "clean") for row in found.values())


def test_the_seeds_themselves_are_sound(undamaged: list[Seed], tmp_path: Path) -> None:
    source = tmp_path / "calls"
    source.mkdir()
    for seed in undamaged:
        (source / f"{seed.name}.{seed.suffix}").write_bytes(seed.content)
    night = split_night(source, open_store(str(tmp_path / "tables")), tmp_path / "spool", deadline_s=DEADLINE_S)
    assert night.outcome.failures_left == ()
    ended = check_rows(tmp_path / "tables", [path.name for path in source.iterdir()])
    assert ended == {"clean": len(undamaged)}
    durations = {name: row["duration_s"] for name, row in rows(tmp_path / "tables").items()}
    assert all(1.4 < duration_s < 1.9 for duration_s in durations.values()), durations


@pytest.mark.timeout(longer(120, 3_600))
@pytest.mark.parametrize("files_alone_up_to", [pytest.param(10_000, marks=long), 10])
def test_each_damaged_file_has_one_row(undamaged: list[Seed], files_alone_up_to: int, tmp_path: Path) -> None:
    """In groups, as in runs of more than 100 files; in the long form each alone, too."""
    names = write_mutants(tmp_path / "calls", range(N_MUTANTS), undamaged)
    store = open_store(str(tmp_path / "tables"))
    night = split_night(
        tmp_path / "calls", store, tmp_path / "spool", deadline_s=DEADLINE_S, files_alone_up_to=files_alone_up_to
    )
    assert night.outcome.failures_left == (), [failure.error_message for failure in night.outcome.failures_left]
    ended = check_rows(tmp_path / "tables", names)
    print(f"{N_MUTANTS} mutants of {len(undamaged)} seeds: {dict(ended)}; {night.workers_started} workers")
    assert min(ended["clean"], ended["warned"], ended["CorruptAudio"], ended["NotAudio"]) > 0, "too mild, or too harsh"
    assert list((tmp_path / "spool").iterdir()) == []
    again = split_night(tmp_path / "calls", store, tmp_path / "spool", deadline_s=DEADLINE_S)
    assert again.outcome.landed == 0, "what has a row is not done again"


@long
@pytest.mark.timeout(400)
def test_a_whole_night_of_damaged_files(undamaged: list[Seed], prefect_url: str, samples: Path, tmp_path: Path) -> None:
    """The real flow, its model included: the harmless files among them say what they always say."""
    source, dest = tmp_path / "calls", tmp_path / "tables"
    step = N_MUTANTS // N_IN_A_WHOLE_NIGHT
    names = write_mutants(source, range(0, N_MUTANTS, step)[:N_IN_A_WHOLE_NIGHT], undamaged)
    harmless = ["en_000.flac", "ko_000.flac"]
    for name in harmless:
        shutil.copyfile(samples / name, source / name)
    said = CommandLine(prefect_url)(
        "run", source, dest, "--model", "fixture", "--device", "cpu", "--cpu-workers", "1", "--retries", "1",
        "--retry-delay-s", "0", "--split-deadline-s", str(DEADLINE_S), "--json",
    )  # fmt: skip
    assert "Traceback" not in said.err, said.err
    assert said.status == 0, said.err
    counted = json.loads(said.out.splitlines()[-1])
    ended = check_rows(dest, [*names, *harmless])
    n_failed = sum(count for kind, count in ended.items() if kind in FOR_GOOD)
    assert (counted["failed_retryable"], counted["failed_terminal"]) == (0, n_failed)
    assert counted["landed"] == len(names) + len(harmless) - n_failed
    texts = {json.loads(line)["file"]: json.loads(line)["text"] for line in _reference(samples)}
    assert {name: rows(dest)[name]["text"] for name in harmless} == {name: texts[name] for name in harmless}


def _reference(samples: Path) -> list[str]:
    return (samples / "reference.jsonl").read_text().splitlines()
