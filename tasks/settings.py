"""Every option of a run, once: the command line, the environment, the flow's parameters and the docs are made of it.

An option given on the command line or in the Prefect form wins over the environment (`NIGHTSCRIBE_MODEL`, nested ones
`NIGHTSCRIBE_ADVANCED__BEAM_SIZE`), the environment over the default. Secrets are not here: credentials for storage and
the Hub come from the environment alone, under the names that their own libraries read.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from stt_engine.types import ChannelMode, Task, Timestamps, WindowLength
from tasks.form import DEVICE_PATTERN, SCHEDULER_PATTERN, TIME_OF_DAY_PATTERN
from tasks.labels import LabelPattern

_BACKENDS = ("auto", "faster-whisper", "transformers", "openai-whisper")


def _a_backend(value: object) -> object:
    if value not in (*_BACKENDS, "fake"):
        raise ValueError(f"is no backend: choose {', '.join(_BACKENDS)}")
    return value


BackendChoice = Annotated[
    Literal["auto", "faster-whisper", "transformers", "openai-whisper", "fake"],
    BeforeValidator(_a_backend),
    # What the form offers; the fake one is for tests of plumbing, which call the flow by themselves.
    WithJsonSchema({"type": "string", "enum": list(_BACKENDS)}),
]


TaskRunnerChoice = Literal["local", "dask"]


def _no_bare_number(value: object) -> object:
    """Pydantic would take 2026 for seconds since 1970."""
    if isinstance(value, int | float) or (isinstance(value, str) and value.strip().lstrip("-").isdigit()):
        raise ValueError(f"{value} is no date: write it as 2026-11-22 or 2026-11-22T02:30:00+09:00")
    return value


def _a_device(value: str) -> str:
    if not re.fullmatch(DEVICE_PATTERN, value):
        raise ValueError("is no device: choose auto, cpu, cuda or cuda:N, e.g. cuda:0")
    return value


def _a_scheduler(value: str) -> str:
    if not re.fullmatch(SCHEDULER_PATTERN, value):
        raise ValueError("is no address of a Dask scheduler: write it as tcp://HOST:PORT or tls://HOST:PORT")
    return value


def _a_time_of_day(value: str) -> str:
    if not re.fullmatch(TIME_OF_DAY_PATTERN, value):
        raise ValueError("is no time of day: write it as HH:MM, e.g. 06:30")
    return value


def _in_utc(moment: datetime) -> datetime:
    """A time without a zone is meant in the zone of the machine, as `date` prints it."""
    return moment.astimezone(UTC)


Moment = Annotated[datetime, BeforeValidator(_no_bare_number), AfterValidator(_in_utc)]


class AdvancedSettings(BaseModel):
    """What few runs need to change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: WindowLength = Field(
        "full",
        description="fit pads to the longest chunk of a batch instead of 30 s: faster on short calls.",
    )
    beam_size: int = Field(1, ge=1, le=10, description="Beams at temperature 0; above 1 only with faster-whisper.")
    device_batch_windows: int = Field(
        0,
        ge=0,
        le=512,
        description="30 s windows in one forward pass; 0: as many as the GPU's memory holds, 16 on a CPU.",
    )
    task_batch_s: float = Field(6.0, gt=0, le=600, description="Seconds of a device's time in one transcribe task.")
    files_per_part: int = Field(200, ge=1, le=10_000, description="Files that share one Parquet part.")
    max_chunk_s: float = Field(30.0, ge=1, le=30, description="Longest chunk, in seconds.")
    max_gap_s: float = Field(3.0, ge=0.1, le=30, description="A silence longer than this ends a chunk, in seconds.")
    vad_threshold: float = Field(0.5, gt=0, lt=1, description="Probability above which a moment is speech.")
    no_speech_threshold: float = Field(0.6, ge=0, le=1, description="Whisper's no-speech gate.")
    logprob_threshold: float = Field(-1.0, le=0, description="Mean log probability under which a chunk is doubtful.")
    compression_ratio_threshold: float = Field(2.4, gt=0, description="Compression ratio above which text repeats.")
    coverage_gap_s: float = Field(1.0, gt=0, description="Speech without text, longer than this, is decoded again.")
    max_duration_s: float = Field(24 * 3600.0, gt=0, description="Longest recording, in decoded seconds.")
    max_file_bytes: int = Field(8 * 2**30, gt=0, description="Largest file, in bytes.")
    max_channels: int = Field(64, ge=1, le=255, description="Most channels in a file.")
    split_deadline_s: float = Field(1800.0, gt=0, description="A file not split by then ends its worker, in seconds.")
    transcribe_deadline_s: float = Field(1800.0, gt=0, description="Likewise for a task batch, in seconds.")
    retries: int = Field(3, ge=0, le=20, description="Further attempts at a file after a retryable error.")
    retry_delay_s: float = Field(10.0, ge=0, description="Delay before the first of them; doubles, with jitter.")
    cpu_worker_memory_bytes: int = Field(4 * 2**30, gt=0, description="Most memory for decoding a file.")
    spool: str | None = Field(None, description="Folder or fsspec URI for chunks in waiting; default: temporary.")
    gpu_price_per_hour: float = Field(0.0, ge=0, description="For the cost estimate, in your currency.")


class RunSettings(BaseSettings):
    """The options of `nightscribe run` and of the flow."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTSCRIBE_", env_nested_delimiter="__", frozen=True, extra="forbid", env_ignore_empty=True
    )

    source: str = Field(description="Folder, file or fsspec URI of the audio, e.g. s3://calls/2026/.")
    dest: str = Field(description="Folder or s3:// URI of the tables.")
    model: str = Field("large-v3-turbo", description="Name (fetched once) or directory of the Whisper model.")
    backend: BackendChoice = Field("auto", description="Library that runs it; auto is the first that loads.")
    device: Annotated[str, AfterValidator(_a_device)] = Field("auto", description="auto, cpu, cuda (all) or cuda:N.")
    compute_type: str = Field("auto", description="float16, int8, float32, ... as the backend has them.")
    language: str = Field("auto", description="Whisper code such as ko; auto lets each file's speech vote.")
    task: Task = Field("transcribe", description="transcribe, or translate into English.")
    pattern: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Globs on the key below SOURCE; default: every audio suffix."
    )
    modified_since: Moment | None = Field(None, description="Only files modified at or after this time.")
    modified_before: Moment | None = Field(None, description="Only files modified before this time.")
    limit: int | None = Field(None, ge=1, description="At most so many files.")
    newest_first: bool = Field(False, description="Take the newest files first; default: by key.")
    stop_at: Annotated[str, AfterValidator(_a_time_of_day)] | None = Field(
        None, description="HH:MM; no new work after it, what is done lands."
    )
    key_pattern: str | None = Field(None, description="Regular expression; its named groups become labels.")
    force: bool = Field(False, description="Transcribe again what has landed already.")
    timestamps: Timestamps = Field("segment", description="Finest times wanted.")
    channels: ChannelMode = Field("mix", description="mix the channels down, or split: one speaker a channel.")
    initial_prompt: str | None = Field(None, max_length=1000, description="Text that goes before, for names and style.")
    hotwords: str | None = Field(None, max_length=1000, description="Words to expect.")
    gpu_workers: int = Field(1, ge=1, le=16, description="Processes that hold the model, per device.")
    cpu_workers: int | None = Field(None, ge=1, le=256, description="Processes that decode and split; default: cores.")
    task_runner: TaskRunnerChoice = Field(
        "local", description="Where the workers are: local (processes of this machine) or dask (a Dask cluster)."
    )
    dask_address: Annotated[str, AfterValidator(_a_scheduler)] | None = Field(
        None, description="Scheduler of a Dask cluster, e.g. tcp://10.0.0.5:8786; default: one of the run's own."
    )
    settle_seconds: float = Field(0.0, ge=0, description="Files younger than this are left for the next run.")
    advanced: AdvancedSettings = Field(default_factory=lambda: AdvancedSettings(), description="Rarely changed.")

    @field_validator("pattern", mode="before")
    @classmethod
    def _one_pattern(cls, value: object) -> object:
        """The environment gives one glob, or a JSON list of them."""
        if isinstance(value, str):
            try:
                listed = json.loads(value)
            except ValueError as error:
                if value.startswith("[") and '"' in value:  # not [ab]*.wav, which is a glob
                    raise ValueError(f"is neither a glob nor a JSON list of them ({error})") from error
                return (value,)
            return listed if isinstance(listed, list) else (value,)
        return value or ()

    @field_validator("pattern")
    @classmethod
    def _no_empty_pattern(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(pattern.strip() for pattern in value):
            raise ValueError("an empty pattern matches nothing: leave it out for every audio suffix")
        return value

    @model_validator(mode="after")
    def _dates_in_order(self) -> Self:
        if self.modified_since and self.modified_before and self.modified_since >= self.modified_before:
            raise ValueError(
                f"modified_since ({self.modified_since.isoformat()}) must be before "
                f"modified_before ({self.modified_before.isoformat()})"
            )
        return self

    @model_validator(mode="after")
    def _an_address_has_its_runner(self) -> Self:
        if self.dask_address is not None and self.task_runner != "dask":
            raise ValueError(f"dask_address {self.dask_address} is for task_runner dask: choose that too")
        return self

    @model_validator(mode="after")
    def _labels_compile(self) -> Self:
        self.labels()
        return self

    def labels(self) -> LabelPattern | None:
        return LabelPattern(self.key_pattern) if self.key_pattern else None

    def stop_time(self, now: datetime) -> datetime | None:
        """The next moment at which the machine's clock shows `stop_at`, in UTC."""
        if self.stop_at is None:
            return None
        hour, minute = map(int, self.stop_at.split(":"))
        local = now.astimezone()
        stop = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return (stop if stop > local else stop + timedelta(days=1)).astimezone(UTC)
