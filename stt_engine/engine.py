"""`WhisperSTT`: a model loaded once, files transcribed with it one after the other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from stt_engine import models
from stt_engine.assemble import assemble
from stt_engine.backends.base import Backend
from stt_engine.decoding import ChunkDecoder
from stt_engine.errors import NightscribeError, NoBackendLoaded, UnknownBackend, UnknownLanguage, UsageError
from stt_engine.language import LanguageGuess, evenly_spread
from stt_engine.loading import AUTO_ORDER, load_backend, load_first
from stt_engine.split import SplitOptions, split_audio
from stt_engine.spool import ChunkSpool
from stt_engine.types import ChannelMode, ChunkTranscript, Task, Timestamps, TranscribeOptions, Transcript, WindowLength


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A backend that is not there, and why."""

    name: str
    reason: str


class WhisperSTT:
    """Speech to text with the first backend that loads of faster-whisper, transformers and openai-whisper.

        >>> stt = WhisperSTT("large-v3-turbo", device="cuda")
        >>> stt.transcribe("call.wav", language="ko").get("text")

    Args:
        model: a name (`tiny`, `large-v3-turbo`, fetched once) or a directory.
        device: auto, cpu, cuda or cuda:N.
        compute_type: auto, float32, float16, int8, ... as the backend knows them.
        backend: load this one and no other.
        backends: "all" or a list: load several, so that `transcribe(..., backend=...)` may choose for each file.
            Those that do not load are passed over as long as one does.
        cpu_threads: 0 means all that this process may use.
        device_batch_windows: 30 s windows in one forward pass; 0 is what suits the device; halved when its memory
            is short.

    Raises:
        NoBackendLoaded: a RuntimeError that says why for each backend.
        ModelNotFound, ModelFormatError, DeviceUnavailable, UnknownBackend: as their names say.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        device: str = "auto",
        compute_type: str = "auto",
        backend: str | None = None,
        backends: str | Sequence[str] | None = None,
        *,
        cpu_threads: int = 0,
        device_batch_windows: int = 0,
    ) -> None:
        self.model = os.fspath(model)
        self.device_batch_windows = device_batch_windows
        self._loaded: dict[str, Backend] = {}
        self.not_loaded: tuple[NotLoaded, ...] = ()
        if backend not in (None, "auto") and backends is not None:
            raise UsageError(f"backend={backend!r} beside backends={backends!r}: give one of them")
        path = str(models.resolve(self.model))
        if backends is not None:
            names = AUTO_ORDER if backends == "all" else (backends,) if isinstance(backends, str) else tuple(backends)
            self._load_several(names, path, device, compute_type, cpu_threads)
        elif backend is not None and backend != "auto":
            self._loaded[backend] = load_backend(
                backend, path, device=device, compute_type=compute_type, cpu_threads=cpu_threads
            )
        else:
            first, reasons = load_first(
                AUTO_ORDER, path, device=device, compute_type=compute_type, cpu_threads=cpu_threads
            )
            self._loaded[first.name] = first
            self.not_loaded = tuple(NotLoaded(name, reason) for name, reason in reasons.items())

    def _load_several(self, names: Sequence[str], path: str, device: str, compute_type: str, cpu_threads: int) -> None:
        if not names:
            raise UsageError(f'backends=[]: name at least one of {", ".join(AUTO_ORDER)}, or "all"')
        missing: list[NotLoaded] = []
        for name in names:
            try:
                self._loaded[name] = load_backend(
                    name, path, device=device, compute_type=compute_type, cpu_threads=cpu_threads
                )
            except UnknownBackend:
                raise
            except NightscribeError as error:
                missing.append(NotLoaded(name, str(error)))
        self.not_loaded = tuple(missing)
        if not self._loaded:
            reasons = "\n".join(f"  {m.name}: {m.reason}" for m in missing)
            raise NoBackendLoaded(f"no backend could load {path}:\n{reasons}")

    @property
    def backend(self) -> Backend:
        """The one that `transcribe` uses by default; `type(stt.backend).__name__` or `.name` says which it is."""
        return next(iter(self._loaded.values()))

    @property
    def backends(self) -> tuple[str, ...]:
        """The names of those that are loaded."""
        return tuple(self._loaded)

    def transcribe(
        self,
        path: str | os.PathLike[str],
        language: str | None = None,
        backend: str | None = None,
        *,
        task: Task = "transcribe",
        timestamps: Timestamps = "segment",
        channels: ChannelMode = "mix",
        initial_prompt: str | None = None,
        hotwords: str | None = None,
        beam_size: int = 1,
        window: WindowLength = "full",
        split: SplitOptions | None = None,
    ) -> Transcript:
        """Transcribe one file, of any length, in bounded memory.

        Args:
            path: anything that PyAV opens.
            language: a Whisper code such as "ko"; None or "auto" lets the file's speech vote.
            backend: one of `self.backends`; None means the default one.
            window: "fit" pads a device batch to its longest chunk instead of 30 s; Whisper was trained on 30 s, so
                what looks suspect is heard again in full. Several times faster on short recordings.

        Raises:
            UnknownBackend: not loaded; the message names those that are, and why the others are not.
            UnknownLanguage: the model does not know it.
            UnsupportedOption: this backend has no such option.
            AudioError: the file cannot be transcribed; its type and message say why.
        """
        chosen = self.choose(backend)
        _one_of("task", task, get_args(Task))
        _one_of("timestamps", timestamps, get_args(Timestamps))
        _one_of("window", window, get_args(WindowLength))
        if beam_size < 1:
            raise UsageError(f"beam_size={beam_size}: at least 1")
        options = TranscribeOptions(
            language=check_language(chosen, language),
            task=task,
            timestamps=timestamps,
            initial_prompt=initial_prompt,
            hotwords=hotwords,
            beam_size=beam_size,
            window=window,
        )
        decoder = ChunkDecoder(chosen, options, device_batch_windows=self.device_batch_windows or chosen.usual_batch)
        source = Path(path)
        splitter = split_audio(
            source, file_id=str(source), name=str(source), options=split or SplitOptions(channels=channels)
        )
        with tempfile.TemporaryDirectory(prefix="nightscribe-") as folder, ChunkSpool(Path(folder) / "spool") as spool:
            for audio in splitter:
                spool.append(audio)
            heard = self._transcribe_spooled(decoder, spool, str(source))
        return assemble(
            heard,
            info=splitter.info,
            speech_s=splitter.speech_s,
            backend=chosen.name,
            model=self.model,
            language=options.language,
            timestamps=timestamps,
        )

    def _transcribe_spooled(self, decoder: ChunkDecoder, spool: ChunkSpool, file_id: str) -> list[ChunkTranscript]:
        count = len(spool.chunks)
        step = 4 * decoder.device_batch_windows
        languages: dict[str, LanguageGuess] = {}
        if decoder.options.language is None and count > step:
            sample = [spool.read(position) for position in evenly_spread(range(count))]
            languages[file_id] = decoder.detect_language(sample)
        heard: list[ChunkTranscript] = []
        for start in range(0, count, step):
            group = [spool.read(position) for position in range(start, min(start + step, count))]
            heard += decoder.transcribe(group, languages)
        return heard

    def choose(self, name: str | None) -> Backend:
        """The loaded backend of that name; None or auto is the default one. Raises UnknownBackend."""
        if name is None or name == "auto":
            return self.backend
        if name not in self._loaded:
            reasons = "".join(f"; {m.name}: {m.reason}" for m in self.not_loaded if m.name == name)
            asked = "" if reasons else f"; load it with WhisperSTT(..., backends=[..., {name!r}])"
            raise UnknownBackend(
                f"backend {name!r} is not loaded: loaded are {', '.join(self._loaded)}{reasons}{asked}"
            )
        return self._loaded[name]

    def close(self) -> None:
        """Give the devices' memory back."""
        for backend in self._loaded.values():
            backend.close()


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name}={value!r}: choose one of {', '.join(allowed)}")


def check_language(backend: Backend, language: str | None) -> str | None:
    """A code that the model knows, or None for a vote; raise UnknownLanguage with the codes that it knows otherwise."""
    if language is None or language == "auto":
        return None if backend.tokens.multilingual else "en"
    code = language.strip().lower()
    if code not in backend.tokens.language_ids and not (code == "en" and not backend.tokens.multilingual):
        known = ", ".join(sorted(backend.tokens.language_ids)) or "en"
        raise UnknownLanguage(f"language {language!r}: the model {backend.model} knows {known}, or auto")
    return code
