"""Every benchmark that needs no GPU, one after the other, into RESULTS.md: what `make bench` runs.

    python -m benchmarks.report [--only feed,growth] [--folder /tmp/nightscribe-corpora]

Some two hours on two cores. RESULTS.md is written anew after every table, and keeps what it held of those that were
not asked for; each says when it was measured.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import HERE
from stt_engine.devices import usable_cores

RESULTS = HERE / "RESULTS.md"
PACKAGES = ("nightscribe", "faster-whisper", "ctranslate2", "transformers", "torch", "openai-whisper", "onnxruntime",
            "av", "prefect", "pyarrow")  # fmt: skip
_HEADING = "## "


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    about: str
    commands: Sequence[Sequence[str]]


def sections(folder: Path) -> Mapping[str, Section]:
    peers = ("benchmarks.peers", "--folder", str(folder))
    ours = "nightscribe,nightscribe without Prefect"
    fastest = "nightscribe,faster-whisper,faster-whisper-batched"
    fit = f"nightscribe --window fit,{fastest}"
    return {
        "calls": Section(
            "200 calls, the bundled model, beside every peer",
            "Targets: exact windows 1.5, `--window fit` 5.",
            [[*peers, "--rounds", "3", "--corpora", "calls"]],
        ),
        "talks": Section(
            "12 recordings of 10 minutes, the bundled model, beside every peer",
            "Target: exact windows 1.6.",
            [[*peers, "--rounds", "2", "--corpora", "talks"]],
        ),
        "archive": Section(
            "One recording of 3 hours, the bundled model",
            "Target: exact windows 1.6.",
            [[*peers, "--rounds", "2", "--corpora", "archive", "--only", f"{fit},whisper.cpp"]],
        ),
        "formats": Section(
            "60 files in six formats, the bundled model, beside every peer",
            "WAV, FLAC, MP3, Vorbis, Opus, AAC; 2 to 40 s.",
            [[*peers, "--rounds", "2", "--corpora", "formats"]],
        ),
        "base": Section(
            "A model of the size of base",
            "Random layers that recite 100 tokens a window (`random_models.py`): texts mean nothing, the arithmetic is "
            "that of the size. The first 60 calls, the first two talks. Targets: 1.2 on calls, 1.0 on talks.",
            [[*peers, "--model", "base", "--rounds", "2", "--corpora", "calls", "--files", "60", "--only",
              f"{ours},faster-whisper,faster-whisper-batched,transformers,openai-whisper,whisper.cpp,whisperx"],
             [*peers, "--model", "base", "--rounds", "2", "--corpora", "talks", "--files", "2", "--only",
              f"{ours},faster-whisper,faster-whisper-batched,whisper.cpp,whisperx"]],
        ),
        "turbo": Section(
            "A model of the size of large-v3-turbo",
            "As above; the first 20 calls, so 20 windows.",
            [[*peers, "--model", "large-v3-turbo", "--rounds", "1", "--corpora", "calls", "--files", "20", "--only",
              fastest]],
        ),
        "pipeline": Section(
            "The pipeline's own ceiling, and what Prefect costs",
            "The null model computes nothing: what is left is listing, decoding, voice activity, the spool, landing "
            "and Prefect. Targets: 1,000 times real time on talks; Prefect's share (with it, less without it) < 3 %.",
            [[*peers, "--rounds", "3", "--corpora", "talks", "--only", f"nightscribe with the null model,{ours}"]],
        ),
        "feed": Section(
            "The feed: decoding, voice activity, mel",
            "On one core, against faster-whisper's own. Targets: voice activity 4, mel 1.5, together 2.5, borders "
            "within 50 ms on 99 % of regions.",
            [["benchmarks.feed", "--folder", str(folder)]],
        ),
        "cold": Section(
            "From the command to the first chunk",
            "Targets: 4 s beyond the model's load beside a running Prefect server, 10 s with its own from the second "
            "command on.",
            [["benchmarks.cold_start", "--times", "5"]],
        ),
        "growth": Section(
            "How cost grows with the number of files",
            "The fake backend, one sentence of 3 s under as many names. Targets: 3 ms of the flow's CPU and 10 KB of "
            "its memory a file.\n\n![Cost by number of files](growth.png)",
            [["benchmarks.growth"]],
        ),
    }  # fmt: skip


def measured(section: Section) -> Iterator[str]:
    """The section, longer by a table each time."""
    outputs = []
    for command in section.commands:
        print(" ".join(command), file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, "-m", *command], cwd=HERE.parent, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}")
        outputs.append(done.stdout.strip())
        yield "\n\n".join([section.about, f"Measured on {date.today()}.", *outputs])


def kept(path: Path) -> dict[str, str]:
    """What RESULTS.md holds, by heading."""
    if not path.exists():
        return {}
    parts = path.read_text().split(f"\n{_HEADING}")[1:]
    return {title.strip(): text.strip() for title, _, text in (part.partition("\n") for part in parts)}


def page(titles: Sequence[str], found: Mapping[str, str]) -> str:
    head = (
        "# Measured side by side\n\n"
        f"`make bench` writes this page. {_processor()}, {usable_cores()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        + ".\nWhat the figures mean, and why a target is missed where it is: [README.md](README.md).\n"
    )
    return "\n".join([head, *(f"{_HEADING}{title}\n\n{found[title]}\n" for title in titles if title in found)])


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nightscribe-corpora")
    parser.add_argument("--only", default="", help="sections, by comma: fixture, base, turbo, pipeline, feed, ...")
    wish = parser.parse_args()
    known = sections(wish.folder)
    wanted = wish.only.split(",") if wish.only else list(known)
    if unknown := set(wanted) - set(known):
        parser.error(f"--only: no section {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    titles = [section.title for section in known.values()]
    for name in wanted:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        for found in measured(known[name]):
            RESULTS.write_text(page(titles, kept(RESULTS) | {known[name].title: found}))


if __name__ == "__main__":
    main()
