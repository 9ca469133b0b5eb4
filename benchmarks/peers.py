"""Nightscribe beside what a user would pick instead: same files, same model, one run, taking turns.

    python -m benchmarks.peers [--model fixture] [--corpora calls,talks] [--rounds 3] [--only nightscribe,transformers]

Prints Markdown. Every contestant is a process of its own, started anew for every turn; its clock runs from the loaded
model to the last text (for Nightscribe: to the last landed row). "Command" is the wall of the whole process: for
Nightscribe that of `nightscribe run`, in a turn of its own. Memory is the sum of proportional set sizes of all
processes of a contestant, the Prefect server apart. A peer that needed more than twice the best peer's time in the
first round has no further turns.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.contestants import APART, FLOWS, PEERS, Place, Turn, turn_of
from benchmarks.corpora import CORPORA, Recording, made
from benchmarks.ggml_model import ggml_file
from benchmarks.processes import HERE
from benchmarks.random_models import SIZES, write_model
from stt_engine import models
from stt_engine.devices import usable_cores
from tests.prefect_server import running_server

PEERS_PYTHON = HERE.parent / ".venv-peers" / "bin" / "python"
TOO_SLOW = 2.0
SIDE_BY_SIDE = ("nightscribe", "nightscribe --window fit", *PEERS)


def rounds(
    corpus: str, files: Sequence[Recording], names: Sequence[str], place: Place, *, count: int
) -> Sequence[Turn]:
    turns: list[Turn] = []
    wanted = list(names)
    for number in range(count):
        for name in wanted:
            turns.append(turn_of(name, files, place))
            print(f"{corpus} {number}: {name} {turns[-1].wall_s:.1f} s", file=sys.stderr, flush=True)
        peers_s = {t.contestant: t.wall_s for t in turns if t.contestant in PEERS}
        slow = [name for name, wall_s in peers_s.items() if wall_s > TOO_SLOW * min(peers_s.values())]
        wanted = [name for name in wanted if name not in slow]
    return turns


def table(corpus: str, files: Sequence[Recording], turns: Sequence[Turn], *, texts_mean_something: bool) -> str:
    audio_s = sum(file.duration_s for file in files)
    names = list(dict.fromkeys(t.contestant for t in turns))
    own = {name: [t for t in turns if t.contestant == name] for name in names}
    walls = {name: [t.wall_s for t in own[name]] for name in names}
    best = min([n for n in names if n in PEERS] or names, key=lambda name: statistics.median(walls[name]))
    lines = [
        f"### {corpus}: {len(files)} files, {audio_s / 60:.0f} min",
        "",
        "| | turns | wall s (range) | times best peer (range) | RTFx | command s | CPU s | first s | peak MB, all "
        "| peak MB, model's | WER en | CER ko |",
        "|---" * 12 + "|",
    ]
    for name in names:
        gains = [rival / mine for rival, mine in zip(walls[best], walls[name], strict=False)]
        last = own[name][-1]
        lines.append(
            f"| {name} | {len(walls[name])} | {_range(walls[name], 1)} | {_range(gains, 2)}"
            f" | {audio_s / statistics.median(walls[name]):,.0f} | {_median(own[name], lambda t: t.command_s)}"
            f" | {_median(own[name], lambda t: t.cpu_s)} | {_median(own[name], lambda t: t.first_s)}"
            f" | {max(t.peak_bytes for t in own[name]) / 1e6:.0f}"
            f" | {max(t.model_peak_bytes for t in own[name]) / 1e6:.0f}"
            + (f" | {last.english_wer:.2%} | {last.korean_cer:.2%} |" if texts_mean_something else " | – | – |")
        )
    for name in names:
        if stages := own[name][-1].stages_s:
            spent = ", ".join(f"{stage} {wall_s:.1f}" for stage, wall_s in stages.items())
            lines.append(f"\nSeconds of {name} by stage, summed over its workers: {spent}.")
    return "\n".join(lines) + "\n"


def _range(values: Sequence[float], digits: int) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _median(turns: Sequence[Turn], of: Callable[[Turn], float]) -> str:
    value = statistics.median(map(of, turns))
    return "–" if math.isnan(value) else f"{value:.1f}"


def first_of(files: Sequence[Recording], count: int, folder: Path) -> Sequence[Recording]:
    """The first `count` of a corpus in a folder of their own; all of them where they are."""
    if count >= len(files):
        return files
    folder.mkdir(parents=True, exist_ok=True)
    found = [Recording(folder / f.path.name, f.language, f.text, f.duration_s) for f in files[:count]]
    for file, copy in zip(files, found, strict=False):
        copy.path.exists() or os.link(file.path, copy.path)
    return found


def the_model(name: str, below: Path) -> Path:
    """A folder that holds the model in Hugging Face's format, and in CTranslate2's in `ct2/`."""
    if name not in SIZES:
        return Path(models.resolve(name))
    folder = write_model(below / f"random-{name}", name, Path(models.resolve("fixture")))
    if not (folder / "ct2").exists():
        shutil.copytree(models.ct2_dir(folder), folder / "ct2")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", default=",".join(CORPORA))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SIDE_BY_SIDE), help=", ".join([*FLOWS, *PEERS]))
    parser.add_argument("--model", default="fixture", help=f"one that Nightscribe knows, or random: {', '.join(SIZES)}")
    parser.add_argument("--files", type=int, default=10_000, help="of each corpus, at most")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nightscribe-corpora")
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON, help=f"runs {' and '.join(APART)}")
    wish = parser.parse_args()
    names = [name for name in wish.only.split(",") if name not in APART or wish.peers_python.exists()]
    if left_out := set(wish.only.split(",")) - set(names):
        print(f"Left out: {', '.join(sorted(left_out))}: {wish.peers_python} is not there.\n")
    model = the_model(wish.model, wish.folder)
    print(f"Model: {wish.model}; {usable_cores()} cores.\n")
    with tempfile.TemporaryDirectory(prefix="nightscribe-bench-server-") as home, running_server(Path(home)) as api_url:
        place = Place(model, ggml_file(model), api_url, wish.peers_python)
        for corpus in wish.corpora.split(","):
            below = wish.folder / f"{corpus}-{wish.files}"
            files = first_of(made(corpus, wish.folder), wish.files, below)
            turns = rounds(corpus, files, names, place, count=wish.rounds)
            print(table(corpus, files, turns, texts_mean_something=wish.model not in SIZES), flush=True)


if __name__ == "__main__":
    main()
