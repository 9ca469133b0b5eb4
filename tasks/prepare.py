"""Before anything starts: what would make the whole run fail is found here and said in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stt_engine import models
from stt_engine.chunking import ChunkOptions
from stt_engine.decode import AudioLimits
from stt_engine.devices import choose_devices, usable_cores
from stt_engine.errors import BackendUnavailable, ModelFormatError, UnknownLanguage, UnsupportedOption
from stt_engine.languages import LANGUAGES
from stt_engine.loading import candidates, check_compute_type, package_missing
from stt_engine.speech_regions import VadOptions
from stt_engine.split import SplitOptions
from stt_engine.types import TranscribeOptions
from tasks.gpu_work import ModelSetup
from tasks.listing import check_source
from tasks.on_dask import check_dask, model_for_workers
from tasks.settings import RunSettings
from tasks.spool import check_spool
from tasks.storage import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A run whose source, destination, model, device and options have been looked at and found usable."""

    settings: RunSettings
    devices: tuple[str, ...]
    model_path: str
    model_setup: ModelSetup
    split: SplitOptions
    transcribe: TranscribeOptions
    options_hash: str
    cpu_workers: int

    @property
    def gpu_workers(self) -> int:
        return len(self.devices) * self.settings.gpu_workers


def prepare(
    settings: RunSettings, *, report: Callable[[models.Progress], None] | None = None, writes: bool = True
) -> PreparedRun:
    """Check everything that is the same for every file, fetching the model if it is a name that is not here yet.

    writes: False for a dry run, which touches neither DEST nor the spool.

    Raises:
        UsageError: SourceNotFound, DestinationRefused, ModelNotFound, DeviceUnavailable, UnknownLanguage, ...
        BackendUnavailable: the backend asked for is not installed.
    """
    language = settings.language.strip().lower()
    if language != "auto" and language not in LANGUAGES:
        raise UnknownLanguage(f"--language {settings.language!r}: known are auto, {', '.join(sorted(LANGUAGES))}")
    if settings.backend != "auto" and (missing := package_missing(settings.backend)):
        raise BackendUnavailable(
            f"--backend {settings.backend}: the package {missing} is not installed; "
            "install it with: pip install 'nightscribe[all]'"
        )
    if settings.task_runner == "dask":
        check_dask(settings)
    elsewhere = settings.dask_address is not None
    # The workers of a cluster look for devices themselves; the flow's own machine may have none.
    devices = (settings.device,) if elsewhere else choose_devices(settings.device)
    backends = (
        candidates(settings.backend)
        if elsewhere and devices != ("cpu",)
        else check_compute_type(settings.backend, devices[0], settings.compute_type)
    )
    if settings.advanced.beam_size > 1 and not {"faster-whisper", "fake"} & set(backends):
        raise UnsupportedOption(
            f"beam_size={settings.advanced.beam_size}: only the faster-whisper backend has beams, and what is asked "
            f"for leaves {' or '.join(backends)}; use 1"
        )
    check_source(settings.source)
    store = open_store(settings.dest)
    if writes:
        store.prove()
        check_spool(settings.advanced.spool)
    model_path = models.resolve(settings.model, report=report)
    models.check_serves(model_path, settings.backend)
    _convert_ahead(settings.backend, model_path, report)
    split, transcribe = split_options(settings), transcribe_options(settings)
    fingerprint = models.fingerprint(model_path)
    cores = usable_cores()
    gpu_workers = len(devices) * settings.gpu_workers
    return PreparedRun(
        settings=settings,
        devices=devices,
        model_path=str(model_path),
        model_setup=ModelSetup(
            model_path=model_for_workers(settings.model, model_path) if elsewhere else str(model_path),
            fingerprint=fingerprint if elsewhere else None,
            backend=settings.backend,
            compute_type=settings.compute_type,
            # Where the device is the CPU the workers share its cores; more threads than cores only wait for each other.
            cpu_threads=max(1, cores // gpu_workers) if devices == ("cpu",) and not elsewhere else 1,
            device_batch_windows=settings.advanced.device_batch_windows,
            workers_on_device=settings.gpu_workers,
        ),
        split=split,
        transcribe=transcribe,
        options_hash=options_hash(fingerprint, split, transcribe),
        cpu_workers=settings.cpu_workers or cores,
    )


def _convert_ahead(backend: str, path: Path, report: Callable[[models.Progress], None] | None) -> None:
    """Convert the model for faster-whisper here, once and with its progress shown, rather than in every worker.

    Raises ModelFormatError where it cannot be converted and no other backend would do.
    """
    if backend not in ("auto", "faster-whisper"):
        return
    try:
        models.ct2_dir(path, report=report)
    except ModelFormatError:
        if backend == "faster-whisper" or all(package_missing(other) for other in ("transformers", "openai-whisper")):
            raise


def split_options(settings: RunSettings) -> SplitOptions:
    advanced = settings.advanced
    return SplitOptions(
        channels=settings.channels,
        vad=VadOptions(threshold=advanced.vad_threshold),
        chunks=ChunkOptions(max_chunk_s=advanced.max_chunk_s, max_gap_s=advanced.max_gap_s),
        limits=AudioLimits(
            max_duration_s=advanced.max_duration_s,
            max_bytes=advanced.max_file_bytes,
            max_channels=advanced.max_channels,
        ),
    )


def transcribe_options(settings: RunSettings) -> TranscribeOptions:
    advanced = settings.advanced
    language = settings.language.strip().lower()
    return TranscribeOptions(
        language=None if language == "auto" else language,
        task=settings.task,
        timestamps=settings.timestamps,
        initial_prompt=settings.initial_prompt or None,
        hotwords=settings.hotwords or None,
        window=advanced.window,
        beam_size=advanced.beam_size,
        compression_ratio_threshold=advanced.compression_ratio_threshold,
        logprob_threshold=advanced.logprob_threshold,
        no_speech_threshold=advanced.no_speech_threshold,
        coverage_gap_s=advanced.coverage_gap_s,
    )


def options_hash(model_fingerprint: str, split: SplitOptions, transcribe: TranscribeOptions) -> str:
    """16 hex digits over the model's weights and every option that can change text or times.

    Not the backend, device or compute type, which change text by rounding only, nor the engine's version: redoing an
    archive after an upgrade is the operator's decision (`--force`). Nor the limits, which decide only whether a file
    is taken. Only what differs from the default is hashed: a new option, or a better default, in a later version does
    not make an archive new.
    """
    meaning = {
        "model": model_fingerprint,
        "transcribe": _changed(transcribe, TranscribeOptions()),
        "channels": split.channels,
        "vad": _changed(split.vad, VadOptions()),
        "chunks": _changed(split.chunks, ChunkOptions()),
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def _changed(options: Any, defaults: Any) -> dict[str, Any]:
    usual = asdict(defaults)
    return {name: value for name, value in asdict(options).items() if value != usual[name]}
