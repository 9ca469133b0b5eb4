"""Where a run over many GPUs bends: the real planner, dispatcher and batcher, with modelled durations.

    python -m benchmarks.scale_sim [--hours 1000 100000] [--gpus 1 8 64] [--flows 1] [--cores-per-gpu 8] ...

Prints Markdown, in half a minute: a line for every value of every option with all values of the others. Of a long run a
stretch is simulated, in split groups of the size that the whole run has; "hours it takes" is from the speed in its
middle and the time until the first file is finished. `--flows N`: so many runs, each with its share of the files and
GPUs; one of them is simulated, as they share nothing but Prefect's server and DEST. The server's load is computed and
holds nothing up; above a core it falls behind. "full" is what has no time left; where nothing is, work comes in lumps,
or the run is over before it is at speed. What only moves in the code is marked as such in `--help`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from functools import cache
from itertools import product

from benchmarks.simulated_crew import PCM_BYTES_PER_S, Model, SimulatedCrew
from stt_engine.split import SplitOptions
from stt_engine.types import TranscribeOptions
from tasks.batches import form_batches
from tasks.night import Night
from tasks.night_options import WINDOWS_FOR_A_GPU
from tasks.night_terms import NightOptions
from tasks.settings import AdvancedSettings
from tasks.split_groups import LARGEST_GROUP, SMALL_GROUP_BYTES, group_sizes
from tasks.task_batches import BatchBounds
from tasks.types import AudioFile, NightPlan

FILES_ALONE_UP_TO: int = NightOptions.__dataclass_fields__["files_alone_up_to"].default
GROUP_BYTES: int = NightOptions.__dataclass_fields__["group_bytes"].default
LEAST_SAMPLE = 8_000
FULL = 0.93
"""What is busy for so much of the time is named as what everything waits for; of the server, which is one process of
Python, so much of a core."""
HEADINGS = (
    "hours of audio", "GPUs", "flows", "times real time", "hours it takes", "GPU busy", "cores busy", "flow busy",
    "server's cores", "task runs a s", "task runs", "spool GB", "full",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a run is given; as the settings of the same names, unless they are only in the code."""

    gpus: int
    flows: int = 1
    cores_per_gpu: int = 8
    workers_per_gpu: int = 2
    """1 in a run of which nothing is said (`--gpu-workers`)."""
    device_batch_windows: int = 0
    task_batch_s: float = AdvancedSettings.model_fields["task_batch_s"].default
    files_per_part: int = AdvancedSettings.model_fields["files_per_part"].default
    most_windows: int = 0
    """Of a task batch, in the code: 256, or `device_batch_windows` if that is more."""
    files_alone_up_to: int = FILES_ALONE_UP_TO
    group_bytes: int = GROUP_BYTES
    largest_group: int = LARGEST_GROUP
    """The code's constant; a smaller one stands here for smaller `group_bytes`."""

    @property
    def bounds(self) -> BatchBounds:
        """As `tasks.night_options` makes them for a GPU."""
        least = self.device_batch_windows or WINDOWS_FOR_A_GPU
        return BatchBounds(self.task_batch_s, least, self.most_windows or max(256, least))

    def group_size(self, files: int, file_bytes: float) -> int:
        least, most = group_sizes(files, alone_up_to=self.files_alone_up_to)
        return min(self.largest_group, max(least, min(most, int(SMALL_GROUP_BYTES // max(file_bytes, 1)))))


@dataclass(frozen=True, slots=True)
class Found:
    files: int
    rtfx: float
    hours: float
    gpu_busy: float
    cores_busy: float
    flow_busy: float
    """Of one flow's process, or of the dispatcher's thread in it, if that has less time left."""
    runs_a_s: float
    server_cores: float
    task_runs: float
    spool_bytes: float

    @property
    def full(self) -> str:
        """What has no time left. Nothing: it is work that does not come evenly, or the beginning and the end."""
        share = {"GPU": self.gpu_busy, "cores": self.cores_busy, "flow": self.flow_busy, "server": self.server_cores}
        return ", ".join(name for name, busy in share.items() if busy >= FULL) or "-"


def simulate(model: Model, site: Site, *, files: int, sample: int) -> Found:
    """One of `site.flows` equal runs, over `files` of all; what is returned is of all together."""
    own_files, gpus = files // site.flows, max(1, site.gpus // site.flows)
    group = site.group_size(own_files, model.file_bytes)
    taken = min(own_files, sample)
    crew, outcome_landed = _night(model, site, gpus, group, taken)
    assert outcome_landed == taken, f"{outcome_landed} of {taken} files landed"
    first, last = int(0.3 * taken), int(0.9 * taken)
    finished_s = crew.finished_s
    a_s = (last - first) / (finished_s[last] - finished_s[first]) if taken < own_files else taken / crew.now_s
    took_s = own_files / a_s + (finished_s[0] if taken < own_files else 0.0)
    runs = crew.runs.total() / taken
    return Found(
        files=taken,
        rtfx=site.flows * own_files * model.file_s / took_s,
        hours=took_s / 3600,
        gpu_busy=a_s * crew.gpu_busy_s / taken / gpus,
        cores_busy=a_s * crew.core_busy_s / taken / (gpus * site.cores_per_gpu),
        flow_busy=min(1.0, a_s * max(crew.flow_busy_s, crew.now_s - crew.idle_s) / taken),
        runs_a_s=site.flows * a_s * runs,
        server_cores=site.flows * a_s * (runs * model.server_task_run_s + model.server_file_s),
        task_runs=site.flows * own_files * runs,
        spool_bytes=site.flows * crew.most_spooled * model.chunk_s * PCM_BYTES_PER_S,
    )


@cache
def _night(model: Model, site: Site, gpus: int, group: int, taken: int) -> tuple[SimulatedCrew, int]:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    made = [
        AudioFile(f"s3://calls/{n:09d}.flac", f"{n:09d}.flac", f"{n:x}", model.file_bytes, moment) for n in range(taken)
    ]
    batches = form_batches(
        [(file, 0) for file in made],
        options_hash="0",
        ingest_date=date(2026, 1, 1),
        files_per_batch=site.files_per_part,
    )
    cores = gpus * site.cores_per_gpu
    crew = SimulatedCrew(model, cores=cores, gpus=gpus, workers_per_gpu=site.workers_per_gpu)
    options = NightOptions(
        split=SplitOptions(),
        transcribe=TranscribeOptions(language="en"),
        model="x",
        backend="x",
        spool_uri="/nowhere",
        cpu_workers=cores,
        gpu_workers=gpus * site.workers_per_gpu,
        batches=site.bounds,
        group_bytes=site.group_bytes,
        # So that the stretch has groups of the whole run's size.
        files_alone_up_to=taken if group == 1 else -(-taken // group),
    )
    night = Night(NightPlan("p", "r", batches, taken, 0, 0, 0), crew, options, on_file=crew.hear)
    night._answers = crew  # type: ignore[assignment]
    return crew, night.run().landed


def rows(variants: Sequence[tuple[str, Model, dict[str, float]]], *, hours: Sequence[float], gpus: Sequence[int],
         flows: Sequence[int], sample: int) -> Iterator[str]:  # fmt: skip
    """A line for everything with everything; `variants` are what differs from the usual, in words, and all of it."""
    headings = (*HEADINGS, "with") if any(told for told, _, _ in variants) else HEADINGS
    yield "| " + " | ".join(headings) + " |"
    yield "|---" * len(headings) + "|"
    for audio_hours, n_gpus, n_flows, (told, model, site) in product(hours, gpus, flows, variants):
        if n_flows > n_gpus:
            continue
        files = int(audio_hours * 3600 / model.file_s)
        here = Site(gpus=n_gpus, flows=n_flows, **site)  # type: ignore[arg-type]
        found = simulate(model, here, files=files, sample=max(LEAST_SAMPLE, sample * n_gpus // n_flows))
        cells = (
            f"{audio_hours:,.0f}", n_gpus, n_flows, f"{found.rtfx:,.0f}", f"{found.hours:,.2f}",
            f"{found.gpu_busy:.0%}", f"{found.cores_busy:.0%}", f"{found.flow_busy:.0%}",
            f"{found.server_cores:.2f}", f"{found.runs_a_s:.1f}", f"{found.task_runs:,.0f}",
            f"{found.spool_bytes / 1e9:,.1f}", found.full, told or "-",
        )  # fmt: skip
        yield "| " + " | ".join(map(str, cells[: len(headings)])) + " |"


def variants(chosen: dict[str, list[float]]) -> list[tuple[str, Model, dict[str, float]]]:
    """Of every option all values with all of the others'."""
    usual = {name: getattr(Site(gpus=1), name, None) for name in chosen} | {
        entry.name: entry.default for entry in fields(Model)
    }
    made = []
    for values in product(*chosen.values()):
        given = dict(zip(chosen, values, strict=True))
        told = ", ".join(f"{name} {value:g}" for name, value in given.items() if value != usual[name])
        model = Model(**{entry.name: given.pop(entry.name) for entry in fields(Model)})  # type: ignore[arg-type]
        made.append((told, model, given))
    return made


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--hours", type=float, nargs="+", default=[1_000, 100_000, 10_000_000])
    made.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    made.add_argument("--flows", type=int, nargs="+", default=[1])
    made.add_argument("--sample", type=int, default=1_000, help=f"files simulated a GPU, {LEAST_SAMPLE} at least")
    site = made.add_argument_group("the site", "settings of a run; several values of any are tried in turn")
    usual = Site(gpus=1)
    groups = {
        site: ("cores_per_gpu", "workers_per_gpu", "device_batch_windows", "task_batch_s", "files_per_part"),
        made.add_argument_group("in the code", "constants, no settings of a run"): (
            "most_windows", "files_alone_up_to", "group_bytes", "largest_group",
        ),
    }  # fmt: skip
    for group, names in groups.items():
        for name in names:
            default = getattr(usual, name)
            group.add_argument(f"--{name.replace('_', '-')}", type=type(default), nargs="+", default=[default],
                               help=f"default: {default}")  # fmt: skip
    durations = made.add_argument_group("durations and sizes", "in seconds and bytes")
    for entry in fields(Model):
        durations.add_argument(
            f"--{entry.name.replace('_', '-')}", type=type(entry.default), nargs="+", default=[entry.default],
            help=f"{entry.metadata['help']}; {entry.default}",
        )  # fmt: skip
    return made


def main(given: Sequence[str] | None = None) -> None:
    chosen = vars(parser().parse_args(given))
    told = {name: chosen.pop(name) for name in ("hours", "gpus", "flows", "sample")}
    for line in rows(variants(chosen), **told):
        print(line, flush=True)


if __name__ == "__main__":
    main()
