"""A night of milliseconds: it claims and lands as a run does, and takes its files' words for granted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stt_engine.errors import StorageUnavailable
from stt_engine.split import SplitOptions
from stt_engine.types import TranscribeOptions
from tasks.claim import claim
from tasks.gpu_work import ModelSetup
from tasks.land import land_batch
from tasks.prepare import PreparedRun
from tasks.settings import AdvancedSettings, RunSettings
from tasks.storage import Store
from tasks.types import LandingBatch
from tests.tasks.builders import OPTIONS, landed, stamp


@dataclass(frozen=True)
class QuickNight:
    planned: int
    landed: int
    errors: tuple[StorageUnavailable, ...]
    """Of batches of which nobody knows whether they landed."""


def quick_night(
    source: Path,
    store: Store,
    *,
    files_per_part: int = 100,
    before_landing: Callable[[LandingBatch], None] = lambda batch: None,
) -> QuickNight:
    """Raises what ends a run before or after its work: DestinationRefused, StorageUnavailable."""
    settings = RunSettings(
        source=str(source), dest=store.uri, model="fixture", advanced=AdvancedSettings(files_per_part=files_per_part)
    )
    run = PreparedRun(
        settings=settings,
        devices=("cpu",),
        model_path="",
        model_setup=ModelSetup(model_path=""),
        split=SplitOptions(),
        transcribe=TranscribeOptions(),
        options_hash=OPTIONS,
        cpu_workers=1,
    )
    n_landed, errors, unsettled = 0, [], []
    with claim(run, store, started_at=datetime.now(UTC)) as claimed:
        for batch in claimed.plan.batches:
            before_landing(batch)
            try:
                part = land_batch(store, batch, [landed(file) for file in batch.files], stamp(claimed.plan.run_id))
                n_landed += len(part.landed_files)
            except StorageUnavailable as error:
                errors.append(error)
                unsettled.append(batch.batch_id)
        claimed.unsettled = unsettled
    return QuickNight(len(claimed.plan.files), n_landed, tuple(errors))
