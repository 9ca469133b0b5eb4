"""The flow: new audio in, Parquet out.

    discover → plan → split (CPU workers) → batch → transcribe (GPU workers) → assemble → land → report

The steps themselves are in tasks/whole_run.py, which the backfill calls too. A file entry point for Prefect
(`flows/transcribe_new_audio.py:transcribe_new_audio`): it is loaded under its bare stem, so no type is defined here.
"""

from __future__ import annotations

from datetime import datetime

from prefect import flow
from prefect.client.schemas.objects import State

from stt_engine.types import ChannelMode, Task, Timestamps
from tasks.form import Count, CpuWorkers, Device, GpuWorkers, Hint, Scheduler, Settling, TimeOfDay, Uri
from tasks.settings import AdvancedSettings, BackendChoice, TaskRunnerChoice
from tasks.whole_run import whole_run


@flow(name="transcribe-new-audio", persist_result=False)
def transcribe_new_audio(
    source: Uri,
    dest: Uri,
    model: str = "large-v3-turbo",
    backend: BackendChoice = "auto",
    device: Device = "auto",
    compute_type: str = "auto",
    language: str = "auto",
    task: Task = "transcribe",
    pattern: list[str] | None = None,
    modified_since: datetime | None = None,
    modified_before: datetime | None = None,
    limit: Count | None = None,
    newest_first: bool = False,
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
    settle_seconds: Settling = 0.0,
    advanced: AdvancedSettings = AdvancedSettings(),  # noqa: B008 - frozen, and Prefect shows its fields in the form
) -> State:
    """Transcribe what is new in SOURCE and land it in DEST as Parquet, one row per file.

    Args:
        source: Folder, file or fsspec URI of the audio, e.g. s3://calls/2026/.
        dest: Folder or s3:// URI of the tables.
        model: Name (fetched once) or directory of the Whisper model.
        backend: Library that runs it; auto is the first that loads.
        device: auto, cpu, cuda (all of them) or cuda:N.
        compute_type: float16, int8, float32, ... as the backend has them.
        language: Whisper code such as ko; auto lets each file's speech vote.
        task: transcribe, or translate into English.
        pattern: Globs on the key below SOURCE; none means every audio suffix.
        modified_since: Only files modified at or after this time.
        modified_before: Only files modified before this time.
        limit: At most so many files.
        newest_first: Take the newest files first.
        stop_at: HH:MM; no new work after it, what is done lands.
        key_pattern: Regular expression on the key; its named groups become labels.
        force: Transcribe again what has landed already.
        timestamps: Finest times wanted.
        channels: mix the channels down, or split them: one speaker a channel.
        initial_prompt: Text that goes before, for names and style.
        hotwords: Words to expect.
        gpu_workers: Processes that hold the model, per device.
        cpu_workers: Processes that decode and split; none means one per core.
        task_runner: Where the workers are: local (processes of this machine) or dask (a Dask cluster).
        dask_address: Scheduler of a Dask cluster, e.g. tcp://10.0.0.5:8786; none means one of the run's own.
        settle_seconds: Files younger than this are left for the next run.
        advanced: What few runs need to change.
    """
    return whole_run(
        source=source,
        dest=dest,
        model=model,
        backend=backend,
        device=device,
        compute_type=compute_type,
        language=language,
        task=task,
        pattern=tuple(pattern or ()),
        modified_since=modified_since,
        modified_before=modified_before,
        limit=limit,
        newest_first=newest_first,
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
        settle_seconds=settle_seconds,
        advanced=advanced,
    )
