"""From the settings of a run to the options of its night."""

from __future__ import annotations

from datetime import datetime

from stt_engine.backends.base import USUAL_BATCH
from tasks.night_terms import NightOptions
from tasks.prepare import PreparedRun
from tasks.task_batches import BatchBounds

WINDOWS_FOR_A_GPU = 64
"""The least that a transcribe task brings to a GPU; what its memory holds is known in its worker alone."""

PATIENT_WINDOWS = 64
"""On a CPU: two cores of a small model, each with a full device batch (`FasterWhisperBackend.usual_batch`)."""


def night_options(run: PreparedRun, *, spool_uri: str, now: datetime) -> NightOptions:
    settings, advanced = run.settings, run.settings.advanced
    on_cpu = run.devices == ("cpu",)
    device_batch = advanced.device_batch_windows or (USUAL_BATCH if on_cpu else WINDOWS_FOR_A_GPU)
    return NightOptions(
        split=run.split,
        transcribe=run.transcribe,
        model=settings.model,
        backend=settings.backend,
        spool_uri=spool_uri,
        cpu_workers=run.cpu_workers,
        gpu_workers=run.gpu_workers,
        batches=BatchBounds(
            target_s=advanced.task_batch_s,
            least_windows=device_batch,
            most_windows=max(256, device_batch),
            patient_windows=PATIENT_WINDOWS if on_cpu and not advanced.device_batch_windows else 0,
        ),
        split_deadline_s=advanced.split_deadline_s,
        transcribe_deadline_s=advanced.transcribe_deadline_s,
        stop_at=settings.stop_time(now),
        labels=settings.labels(),
    )
