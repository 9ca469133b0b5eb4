"""Which backend loads: tried in order, and believed only after it has decoded a second of speech."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import as_file, files

from stt_engine.backends.base import Backend
from stt_engine.errors import (
    BackendUnavailable,
    NightscribeError,
    NoBackendLoaded,
    UnknownBackend,
    UnsupportedOption,
)
from stt_engine.split import SplitOptions, split_audio
from stt_engine.types import BackendName, Samples
from stt_engine.windows import WindowRequest

log = logging.getLogger(__name__)

BACKEND_MODULES: dict[str, str] = {
    "faster-whisper": "stt_engine.backends.faster_whisper",
    "transformers": "stt_engine.backends.transformers",
    "openai-whisper": "stt_engine.backends.openai_whisper",
    "fake": "stt_engine.backends.fake",
}
AUTO_ORDER: tuple[BackendName, ...] = ("faster-whisper", "transformers", "openai-whisper")
"""Fastest first. The fake backend is for tests of plumbing and only loads when it is named."""


def load_backend(
    name: str, model: str, *, device: str = "auto", compute_type: str = "auto", cpu_threads: int = 0
) -> Backend:
    """Load one backend and let it decode the bundled second of speech.

    Args:
        name: a key of `BACKEND_MODULES`.
        model: a directory or file as `stt_engine.models.resolve` gives it.
        device: auto, cpu, cuda or cuda:N.
        compute_type: auto, or one that the backend knows.
        cpu_threads: 0 means all that this process may use.

    Raises:
        UnknownBackend: no such name.
        BackendUnavailable: the package is missing, the load failed, or the self-check decoded nonsense.
        UsageError: the model, device or compute type cannot be used by this backend.
    """
    if name not in BACKEND_MODULES:
        raise UnknownBackend(f"backend {name!r}: known are {', '.join(AUTO_ORDER)}")
    try:
        module = importlib.import_module(BACKEND_MODULES[name])
        load: Callable[..., Backend] = module.load
        backend = load(model, device, compute_type, cpu_threads=cpu_threads)
    except NightscribeError:
        raise
    except ImportError as error:
        raise BackendUnavailable(f"backend {name}: {error}; install it with: pip install 'nightscribe[all]'") from error
    except Exception as error:
        # A library's load can fail in more ways than can be listed; "passed over, with the reason" is the contract.
        raise BackendUnavailable(f"backend {name} could not load {model}: {type(error).__name__}: {error}") from error
    check_decodes(backend)
    return backend


def load_first(
    names: Sequence[str], model: str, *, device: str = "auto", compute_type: str = "auto", cpu_threads: int = 0
) -> tuple[Backend, dict[str, str]]:
    """The first of `names` that loads, and why each before it did not.

    Raises:
        NoBackendLoaded: none loads; the message has the reason for each.
    """
    reasons: dict[str, str] = {}
    for name in names:
        try:
            return load_backend(name, model, device=device, compute_type=compute_type, cpu_threads=cpu_threads), reasons
        except NightscribeError as error:
            reasons[name] = str(error)
            log.info("backend %s passed over: %s", name, error)
    raise NoBackendLoaded(f"no backend could load {model}:\n" + "\n".join(f"  {k}: {v}" for k, v in reasons.items()))


def check_decodes(backend: Backend) -> None:
    """Decode the bundled speech; raise BackendUnavailable where the arithmetic comes out as not a number."""
    try:
        encoded = backend.encode([self_check_speech()])
        (output,) = backend.decode(encoded, [WindowRequest(language="en", task="transcribe", timestamps=True)])
    except NightscribeError:
        raise
    except Exception as error:
        raise BackendUnavailable(
            f"backend {backend.name} loaded on {backend.device} ({backend.compute_type}) but cannot decode: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not math.isfinite(output.avg_logprob):
        raise BackendUnavailable(
            f"backend {backend.name} decodes to not-a-number on {backend.device} with compute type "
            f"{backend.compute_type}: choose another --compute-type"
        )


@cache
def self_check_speech() -> Samples:
    """The bundled sentence, float32 `(n_samples,)` at 16 kHz."""
    with as_file(files("stt_engine") / "assets" / "self_check.flac") as path:
        splitter = split_audio(path, file_id="self-check", name="self_check.flac", options=SplitOptions())
        return next(iter(splitter)).samples


def candidates(backend: str) -> tuple[str, ...]:
    """The backends that may be chosen, in order."""
    return AUTO_ORDER if backend == "auto" else (backend,)


def check_compute_type(backend: str, device: str, compute_type: str) -> tuple[str, ...]:
    """Before anything is loaded: the backends that may be chosen and have the compute type.

    Raises UnsupportedOption where there is none.
    """
    asked = candidates(backend)
    if compute_type == "auto" or backend == "fake":
        return asked
    known = {name: _compute_types(name, device) for name in asked}
    left = tuple(name for name in asked if compute_type in known[name])
    if not left:
        there = ", ".join(sorted(set().union(*known.values())))
        raise UnsupportedOption(f"compute type {compute_type!r} on {device}: there are {there}")
    return left


def _compute_types(backend: str, device: str) -> set[str]:
    if backend != "faster-whisper":
        return {"float32", "float16", "bfloat16"}
    if package_missing(backend):
        return set()
    import ctranslate2

    return set(ctranslate2.get_supported_compute_types(device.partition(":")[0]))


_PACKAGES: dict[str, tuple[str, ...]] = {
    "faster-whisper": ("ctranslate2", "tokenizers"),
    "transformers": ("torch", "transformers"),
    "openai-whisper": ("torch", "whisper"),
    "fake": (),
}


def package_missing(name: str) -> str | None:
    """The first package that the backend needs and that is not installed, without importing any."""
    return next((p for p in _PACKAGES[name] if importlib.util.find_spec(p) is None), None)
