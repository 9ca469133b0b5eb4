"""The service's options, once: the environment (`STT_MODEL`), the flags of `nightscribe serve` and the docs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stt_engine.devices import usable_cores
from stt_engine.loading import AUTO_ORDER, BACKEND_MODULES

MAX_DECODE_PROCESSES = 8


class ServerSettings(BaseSettings):
    """What is given by name wins over the environment, the environment over the default."""

    model_config = SettingsConfigDict(env_prefix="STT_", frozen=True, extra="forbid", env_ignore_empty=True)

    model: str = Field("large-v3-turbo", description="Name (fetched once) or directory of the Whisper model.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda|cuda:\d+)$", description="auto, cpu, cuda or cuda:N.")
    compute_type: str = Field("auto", description="float16, int8, float32, ... as the backend has them.")
    backends: str = Field("auto", description="auto (the first that loads), all, or names with commas between.")
    api_key: SecretStr | None = Field(None, min_length=8, description="Key that requests must bring; default: none.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every one.")
    port: int = Field(8003, ge=0, le=65535, description="Port to listen on.")
    max_upload_bytes: int = Field(2**30, ge=1, description="Largest upload; more is refused while it comes in.")
    max_audio_seconds: float = Field(6 * 3600.0, gt=0, description="Longest recording, in decoded seconds.")
    max_queue: int = Field(64, ge=1, le=4096, description="Requests under way at once; one more is answered 429.")
    batch_wait_ms: float = Field(50.0, ge=0, le=1000, description="A device batch waits so long for company, at most.")
    device_batch_windows: int = Field(
        0, ge=0, le=512, description="Windows in one device batch; 0: what suits the device; on a CPU 4."
    )
    model_copies: int = Field(0, ge=0, le=16, description="Copies of the model; 0: one, of a small one on a CPU more.")
    decode_processes: int = Field(
        0, ge=0, le=64, description="Processes that decode uploads; 0: one for each core, at most 8."
    )
    decode_step_seconds: float = Field(
        20.0, gt=0, description="A decoder that stands still for longer is ended, its upload refused (422)."
    )
    decode_memory_bytes: int = Field(
        2 * 2**30,
        ge=2**28,
        description="A decoding process that holds more is ended, the upload at fault refused.",
    )
    upload_idle_seconds: float = Field(20.0, gt=0, description="An upload silent for longer is dropped (408).")
    request_seconds: float = Field(
        3600.0, gt=0, description="A request that takes longer is answered 504, its work dropped; upload included."
    )
    header_seconds: float = Field(10.0, gt=0, description="A connection without a request by then is closed.")
    drain_seconds: float = Field(300.0, ge=1, description="After SIGTERM, requests under way may take so long.")

    @field_validator("backends")
    @classmethod
    def _known(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        unknown = [name for name in names if name not in BACKEND_MODULES]
        if value in ("auto", "all"):
            return value
        if unknown or not names:
            raise ValueError(f"{value!r}: auto, all, or some of {', '.join(AUTO_ORDER)}")
        return ",".join(names)

    @property
    def backend_names(self) -> tuple[str, ...] | None:
        """Those to load side by side; None for the first that loads."""
        if self.backends == "auto":
            return None
        return AUTO_ORDER if self.backends == "all" else tuple(self.backends.split(","))

    @cached_property
    def model_id(self) -> str:
        """The model as clients name it: a directory goes by its last part, so that no path of ours is shown."""
        path = Path(self.model).expanduser()
        return path.resolve().name if path.exists() else self.model

    @property
    def decoding_processes(self) -> int:
        return self.decode_processes or min(usable_cores(), MAX_DECODE_PROCESSES)
