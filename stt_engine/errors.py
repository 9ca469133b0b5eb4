"""Every error that Nightscribe raises on purpose.

    NightscribeError
    ├── RetryableError                      the same call may succeed later; a Prefect task may retry it
    │   ├── StorageUnavailable              time-outs, 5xx, throttling, connections reset
    │   ├── SourceChanged                   still being written: left for the next run, no failure of this one
    │   ├── WorkerDied                      a worker process ended in the middle of a call
    │   │   └── DeadlineExceeded            ... because it was killed at its deadline
    │   ├── ClusterUnavailable              the Dask cluster gave an order back unfinished; no file's fault
    │   ├── DeviceOutOfMemory
    │   └── DeviceFailed                    CUDA errors other than memory
    └── TerminalError                       the same call will fail again
        ├── AudioError                      about one file: it gets a row with status "failed"
        │   ├── EmptyFile
        │   ├── NotAudio                    no container or codec that can be opened
        │   ├── NoAudioStream               e.g. a video without sound
        │   ├── CorruptAudio                nothing of it decodes
        │   ├── AudioTooLarge               over a limit: bytes, seconds, channels, sample rate
        │   ├── MemoryLimitExceeded         decoding it took more memory than a CPU worker may have
        │   └── PoisonousAudio              it killed every worker that touched it
        ├── AccessDenied                    permission on a file or bucket
        ├── SourceGone                      the object vanished between listing and reading
        ├── UsageError                      about the arguments: said before anything starts, exit status 2
        │   ├── ModelNotFound
        │   ├── ModelFormatError            a directory that the backend cannot read
        │   ├── UnknownBackend
        │   ├── UnknownLanguage
        │   ├── DeviceUnavailable           e.g. no CUDA device
        │   ├── UnsupportedOption           this backend has no such option
        │   ├── SourceNotFound
        │   ├── SourceRefused               a protocol or host that is not allowed here, or a secret in the address
        │   └── DestinationRefused          not writable, or does not refuse a second exclusive create
        ├── WorkerFault                     a worker raised something that cannot travel between processes
        └── BackendUnavailable              a backend's package is missing or its load failed

`WhisperSTT` raises `NoBackendLoaded`, a `RuntimeError` and a `TerminalError`, when none of its backends loads.
Third-party exceptions are mapped to these at the edge where they enter; `__cause__` keeps the original.
A message says which file or setting, what happened, and what to do. It never holds transcript text or a secret.
"""

from __future__ import annotations


class NightscribeError(Exception):
    """Base of the tree. `retryable` is part of the type, not of the instance."""

    retryable: bool = False


class RetryableError(NightscribeError):
    retryable = True


class StorageUnavailable(RetryableError): ...


class SourceChanged(RetryableError): ...


class WorkerDied(RetryableError):
    crashed: bool = False
    """By a fault of the code that ran in it (SIGSEGV, SIGABRT, ...), and not because somebody ended it."""


class DeadlineExceeded(WorkerDied): ...


class ClusterUnavailable(RetryableError): ...


class DeviceOutOfMemory(RetryableError): ...


class DeviceFailed(RetryableError): ...


class TerminalError(NightscribeError): ...


class AudioError(TerminalError): ...


class EmptyFile(AudioError): ...


class NotAudio(AudioError): ...


class NoAudioStream(AudioError): ...


class CorruptAudio(AudioError): ...


class AudioTooLarge(AudioError): ...


class MemoryLimitExceeded(AudioError): ...


class PoisonousAudio(AudioError): ...


class AccessDenied(TerminalError): ...


class SourceGone(TerminalError): ...


class UsageError(TerminalError): ...


class ModelNotFound(UsageError): ...


class ModelFormatError(UsageError): ...


class UnknownBackend(UsageError): ...


class UnknownLanguage(UsageError): ...


class DeviceUnavailable(UsageError): ...


class UnsupportedOption(UsageError): ...


class SourceNotFound(UsageError): ...


class SourceRefused(UsageError): ...


class DestinationRefused(UsageError): ...


class WorkerFault(TerminalError): ...


class BackendUnavailable(TerminalError): ...


class NoBackendLoaded(TerminalError, RuntimeError): ...
