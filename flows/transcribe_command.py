"""`nightscribe transcribe`: the engine alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.console import stderr
from stt_engine import WhisperSTT
from stt_engine.errors import AccessDenied, AudioError, SourceGone, UsageError
from stt_engine.subtitles import TranscriptWriter, writer_for
from stt_engine.types import Transcript

EXIT_DONE, EXIT_USAGE = 0, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscribeRequest:
    files: tuple[Path, ...]
    model: str
    output_format: str
    output_dir: Path | None
    language: str
    task: Any
    backend: str
    device: str
    compute_type: str
    timestamps: Any
    channels: Any
    initial_prompt: str | None
    hotwords: str | None


def transcribe_files(request: TranscribeRequest) -> int:
    """One file after the other; one that fails is said on stderr and the others go on. Exit status 2 if any failed."""
    _one_of("--task", request.task, ("transcribe", "translate"))
    _one_of("--timestamps", request.timestamps, ("none", "segment", "word"))
    _one_of("--channels", request.channels, ("mix", "split"))
    writer = writer_for(request.output_format)
    several = len(request.files) > 1
    if several and request.output_dir is None and writer.suffix not in ("txt", "json"):
        raise UsageError(f"--format {writer.suffix} with several files: name an --output-dir for one file each")
    if request.output_dir is not None:
        _no_two_of_one_name(request.files)
        _make(request.output_dir)
    stt = WhisperSTT(request.model, request.device, request.compute_type, request.backend)
    failed = 0
    for number, path in enumerate(request.files, 1):
        stderr.print(f"[{number}/{len(request.files)}] {path}", highlight=False, markup=False)
        try:
            transcript = stt.transcribe(
                path,
                language=request.language,
                task=request.task,
                timestamps=request.timestamps,
                channels=request.channels,
                initial_prompt=request.initial_prompt,
                hotwords=request.hotwords,
            )
        except (AudioError, AccessDenied, SourceGone) as error:
            stderr.print(str(error), style="red", highlight=False, markup=False)
            failed += 1
            continue
        for warning in transcript.warnings:
            stderr.print(f"{path}: {warning}", style="yellow", highlight=False, markup=False)
        if request.output_dir is None:
            sys.stdout.write(_one_of_several(path, transcript, writer) if several else writer.render(transcript))
        else:
            target = writer.write(transcript, request.output_dir / f"{path.stem}.{writer.suffix}")
            stderr.print(f"    {target}", highlight=False, markup=False)
    return EXIT_USAGE if failed else EXIT_DONE


def _one_of_several(path: Path, transcript: Transcript, writer: TranscriptWriter) -> str:
    """For stdout: text under its file's name, JSON as one object a line that begins with it."""
    if writer.suffix == "txt":
        return f"==> {path} <==\n{writer.render(transcript)}"
    row = {"file": str(path), **json.loads(writer.render(transcript))}
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _no_two_of_one_name(paths: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        if (other := seen.setdefault(path.stem, path)) != path:
            raise UsageError(f"{other} and {path} would write the same file in --output-dir: do them apart")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output-dir {folder} cannot be made: {error.strerror}; name a folder that can be written"
        ) from error


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value!r}: choose one of {', '.join(allowed)}")
