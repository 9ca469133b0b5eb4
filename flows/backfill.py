"""The backfill: the same run as `transcribe_new_audio`, over days that somebody names in the form.

Both days are required, since a range that is left empty would mean the whole archive.

A file entry point for Prefect (`flows/backfill.py:backfill`): it is loaded under its bare stem, so no type is defined
here.
"""

from __future__ import annotations

from datetime import date, datetime, time

from prefect import flow
from prefect.client.schemas.objects import State

from stt_engine.types import ChannelMode, Task, Timestamps
from tasks.form import Count, CpuWorkers, Device, GpuWorkers, Hint, Scheduler, TimeOfDay, Uri
from tasks.settings import AdvancedSettings, BackendChoice, TaskRunnerChoice
from tasks.whole_run import whole_run


@flow(name="backfill", persist_result=False)
def backfill(
    source: Uri,
    dest: Uri,
    modified_since: date,
    modified_before: date,
    model: str = "large-v3-turbo",
    backend: BackendChoice = "auto",
    device: Device = "auto",
    compute_type: str = "auto",
    language: str = "auto",
    task: Task = "transcribe",
    pattern: list[str] | None = None,
    limit: Count | None = None,
    stop_at: TimeOfDay | None = None,
    key_pattern: str | None = None,
    force: bool = False,
    timestamps: Timestamps = "segment",
    channels: ChannelMode = "mix",
    initial_prompt: Hint | None = None,
    hotwords: Hint | None = None,
    gpu_workers: GpuWorkers = 1,
    cpu_workers: CpuWorkers | None = None,
    task_runner: TaskRunnerChoice = "local",
    dask_address: Scheduler | None = None,
    advanced: AdvancedSettings = AdvancedSettings(),  # noqa: B008 - frozen, and Prefect shows its fields in the form
) -> State:
    """Transcribe what was modified in a span of days and has not landed yet; one row per file, as the nightly does.

    Args:
        source: Folder, file or fsspec URI of the audio, e.g. s3://calls/2026/.
        dest: Folder or s3:// URI of the tables; the nightly's, so that neither does the other's files again.
        modified_since: First day, taken whole, in the worker's time zone.
        modified_before: The day after the last one; files of this day are left out.
        model: Name (fetched once) or directory of the Whisper model.
        backend: Library that runs it; auto is the first that loads.
        device: auto, cpu, cuda (all of them) or cuda:N.
        compute_type: float16, int8, float32, ... as the backend has them.
        language: Whisper code such as ko; auto lets each file's speech vote.
        task: transcribe, or translate into English.
        pattern: Globs on the key below SOURCE; none means every audio suffix.
        limit: At most so many files.
        stop_at: HH:MM; no new work after it, what is done lands.
        key_pattern: Regular expression on the key; its named groups become labels.
        force: Transcribe again what has landed already; rows are appended, the newest counts.
        timestamps: Finest times wanted.
        channels: mix the channels down, or split them: one speaker a channel.
        initial_prompt: Text that goes before, for names and style.
        hotwords: Words to expect.
        gpu_workers: Processes that hold the model, per device.
        cpu_workers: Processes that decode and split; none means one per core.
        task_runner: Where the workers are: local (processes of this machine) or dask (a Dask cluster).
        dask_address: Scheduler of a Dask cluster, e.g. tcp://10.0.0.5:8786; none means one of the run's own.
        advanced: What few runs need to change.
    """
    return whole_run(
        source=source,
        dest=dest,
        modified_since=datetime.combine(modified_since, time.min),
        modified_before=datetime.combine(modified_before, time.min),
        model=model,
        backend=backend,
        device=device,
        compute_type=compute_type,
        language=language,
        task=task,
        pattern=tuple(pattern or ()),
        limit=limit,
        stop_at=stop_at,
        key_pattern=key_pattern,
        force=force,
        timestamps=timestamps,
        channels=channels,
        initial_prompt=initial_prompt,
        hotwords=hotwords,
        gpu_workers=gpu_workers,
        cpu_workers=cpu_workers,
        task_runner=task_runner,
        dask_address=dask_address,
        advanced=advanced,
    )
