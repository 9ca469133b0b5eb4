"""Whisper on CTranslate2, the engine inside faster-whisper.

Driven directly rather than through `faster_whisper.WhisperModel`, whose batches hold one file in one language with one
prompt. Measured with ctranslate2 4.8.5: the windows of one call may differ in language, task and previous tokens, but
<|startoftranscript|> must stand at one place and be followed by as many tokens in all; so requests are grouped by that
shape, and windows of one group are decoded together. Usually there is one group.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy.typing as npt

from stt_engine.backends.base import USUAL_BATCH, Backend
from stt_engine.backends.ctranslate2_device import (
    device_errors,
    is_device_error,
    resolve_compute_type,
    resolve_device,
)
from stt_engine.backends.ctranslate2_states import Share, States, shared_out
from stt_engine.devices import usable_cores
from stt_engine.errors import (
    BackendUnavailable,
    ModelFormatError,
    ModelNotFound,
)
from stt_engine.mel import FRAMES_PER_WINDOW, fitting_frames, log_mel
from stt_engine.tokens import TokenTable
from stt_engine.types import BackendName, Samples, Seconds, Word, seconds_from_samples
from stt_engine.windows import Encoded, WindowRequest, WindowTokens
from stt_engine.words import words_from_alignment

BEST_OF = 5
"""How many samples are drawn at a temperature above 0; the likeliest is kept. Whisper's paper, section 4.5."""
MAX_INITIAL_TIMESTAMP_INDEX = 50
"""The first time stamp is at most 1.0 s, in steps of 20 ms."""
DECODER_POSITIONS = 448
_SAMPLES_PER_POSITION = 320

_Key = TypeVar("_Key")
_Part = TypeVar("_Part")
_Result = TypeVar("_Result")

SMALL_MODEL_BYTES = 256 * 2**20
"""Steps of a model this small are too short to be shared by the cores of a CPU: each core takes windows of its own."""


class FasterWhisperBackend(Backend):
    """A CTranslate2 model on one device. `load` constructs it."""

    name: ClassVar[BackendName] = "faster-whisper"

    def __init__(
        self, whisper: Any, *, model: str, device: str, tokens: TokenTable, cpu_threads: int, replicas: int = 1
    ) -> None:
        """`replicas`: how many windows ctranslate2 was told to work on at once, each by threads of its own."""
        self.model = model
        self.device = device
        self.compute_type = str(whisper.compute_type)
        self.tokens = tokens
        self._whisper = whisper
        self._n_mels = int(whisper.n_mels)
        self._cpu_threads = cpu_threads
        self._replicas = replicas
        self._threads = ThreadPoolExecutor(replicas, thread_name_prefix="replica") if replicas > 1 else None

    @property
    def usual_batch(self) -> int:
        """More where the model is small: to read its weights for a step takes longer than to step 16 windows."""
        return 2 * USUAL_BATCH * self._replicas if self._replicas > 1 else USUAL_BATCH

    def encode(self, windows: Sequence[Samples], *, fit: bool = False) -> Encoded:
        import ctranslate2

        n_frames = fitting_frames(windows) if fit else FRAMES_PER_WINDOW
        n_samples = tuple(len(window) for window in windows)
        if self.device == "cpu":
            shares = self._encode_one_by_one(windows, n_frames)
        else:
            began_s = time.perf_counter()
            features = log_mel(windows, self._n_mels, n_frames=n_frames, threads=self._cpu_threads)
            self.mel_s += time.perf_counter() - began_s
            with device_errors(self.device):
                storage = self._whisper.encode(ctranslate2.StorageView.from_array(features))
            shares = (Share(States(storage), range(len(windows))),)
        return Encoded(states=shares, n_windows=len(windows), n_samples=n_samples)

    def _encode_one_by_one(self, windows: Sequence[Samples], n_frames: int) -> tuple[Share, ...]:
        """A core's cache holds the attention of one window: the fixture's took 77 ms so, and 115 in batches of 8, which
        also held eight times the memory."""
        import ctranslate2

        mels_s: list[Seconds] = []

        def row(window: Samples) -> npt.NDArray[Any]:
            began_s = time.perf_counter()
            features = log_mel([window], self._n_mels, n_frames=n_frames)
            mels_s.append(time.perf_counter() - began_s)
            with device_errors(self.device):
                found: npt.NDArray[Any] = States(
                    self._whisper.encode(ctranslate2.StorageView.from_array(features))
                ).on_host[0]
            return found

        rows = self._at_once(row, windows)
        self.mel_s += sum(mels_s) / self._replicas
        return self._in_shares(rows, [len(window) for window in windows])

    def _in_shares(self, rows: Sequence[npt.NDArray[Any]], lengths: Sequence[int]) -> tuple[Share, ...]:
        return tuple(
            Share(States.from_rows(rows[places.start : places.stop]), places)
            for places in shared_out(lengths, self._replicas)
        )

    def select(self, encoded: Encoded, indices: Sequence[int]) -> Encoded:
        with device_errors(self.device):
            rows = {
                place: row
                for share in encoded.states
                if not set(indices).isdisjoint(share.places)
                for place, row in zip(share.places, share.states.on_host, strict=True)
            }
            n_samples = tuple(encoded.n_samples[index] for index in indices)
            shares = self._in_shares([rows[index] for index in indices], n_samples)
        return Encoded(states=shares, n_windows=len(indices), n_samples=n_samples)

    def detect_languages(self, encoded: Encoded) -> list[Mapping[str, float]]:
        if not self.tokens.multilingual:
            return [{"en": 1.0} for _ in range(encoded.n_windows)]

        def detect(share: Share) -> list[Mapping[str, float]]:
            with device_errors(self.device):
                found = self._whisper.detect_language(share.states.storage)
            return [{token.strip("<|>"): float(probability) for token, probability in window} for window in found]

        return list(itertools.chain.from_iterable(self._at_once(detect, encoded.states)))

    def decode(
        self,
        encoded: Encoded,
        requests: Sequence[WindowRequest],
        *,
        temperature: float = 0.0,
        beam_size: int = 1,
        seed: int = 0,
    ) -> list[WindowTokens]:
        """As `Backend.decode`. A loaded model keeps the seed of its first sampling; ctranslate2 ignores later ones."""
        import ctranslate2

        _check_counts(encoded, requests)
        prompts = [self.tokens.prompt(request) for request in requests]
        how: dict[str, Any] = {"beam_size": beam_size}
        if temperature > 0:
            how = {"beam_size": 1, "num_hypotheses": BEST_OF, "sampling_topk": 0, "sampling_temperature": temperature}
            ctranslate2.set_random_seed(seed)

        def generate(share: Share, part: Encoded, places: Sequence[int]) -> list[WindowTokens]:
            with device_errors(self.device):
                results = self._whisper.generate(
                    share.states.storage,
                    [list(prompts[place]) for place in places],
                    max_length=DECODER_POSITIONS,
                    return_scores=True,
                    return_no_speech_prob=True,
                    suppress_blank=True,
                    suppress_tokens=list(self.tokens.suppressed),
                    max_initial_timestamp_index=MAX_INITIAL_TIMESTAMP_INDEX,
                    **how,
                )
            return [_window_tokens(result) for result in results]

        shapes = [(prompt.index(self.tokens.sot), len(prompt)) for prompt in prompts]
        return self._by_group(encoded, shapes, generate)

    def align(
        self, encoded: Encoded, requests: Sequence[WindowRequest], tokens: Sequence[Sequence[int]]
    ) -> list[tuple[Word, ...]]:
        _check_counts(encoded, requests, tokens)
        starts = [self._start_sequence(request) for request in requests]
        for start, text in zip(starts, tokens, strict=True):
            if len(start) + len(text) + 2 > DECODER_POSITIONS:
                raise ValueError(f"{len(text)} tokens do not fit into the decoder's {DECODER_POSITIONS} positions")

        def time(share: Share, part: Encoded, places: Sequence[int]) -> list[tuple[Word, ...]]:
            n_samples_each = part.n_samples[share.places.start : share.places.stop]
            with device_errors(self.device):
                results = self._whisper.align(
                    share.states.storage,
                    list(starts[places[0]]),
                    [list(tokens[place]) for place in places],
                    [_mel_frames(n_samples) for n_samples in n_samples_each],
                )
            return [
                words_from_alignment(
                    self.tokens,
                    requests[place].language,
                    tokens[place],
                    result.alignments,
                    result.text_token_probs,
                    seconds_from_samples(n_samples),
                )
                for place, result, n_samples in zip(places, results, n_samples_each, strict=True)
            ]

        return self._by_group(encoded, starts, time)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        self._whisper.unload_model()

    def _at_once(self, call: Callable[[_Part], _Result], parts: Sequence[_Part]) -> list[_Result]:
        """`call` for each of `parts`, on a thread for each: ctranslate2 gives each caller a replica of its own."""
        if self._threads is None or len(parts) == 1:
            return [call(part) for part in parts]
        return list(self._threads.map(call, parts))

    def _start_sequence(self, request: WindowRequest) -> tuple[int, ...]:
        """The prompt from <|startoftranscript|> on, without <|notimestamps|>, which ctranslate2's align adds."""
        prompt = self.tokens.prompt(request, max_previous=0)
        return tuple(token for token in prompt if token != self.tokens.no_timestamps)

    def _by_group(
        self, encoded: Encoded, keys: Sequence[_Key], call: Callable[[Share, Encoded, Sequence[int]], list[Any]]
    ) -> list[Any]:
        """`call` for each share of the windows of each key, the results back in the windows' order."""
        groups: dict[_Key, list[int]] = {}
        for place, key in enumerate(keys):
            groups.setdefault(key, []).append(place)
        results: list[Any] = [None] * encoded.n_windows
        for places in groups.values():
            part = encoded if len(groups) == 1 else self.select(encoded, places)

            def work(share: Share, part: Encoded = part, places: Sequence[int] = places) -> list[Any]:
                return call(share, part, places[share.places.start : share.places.stop])

            found = itertools.chain.from_iterable(self._at_once(work, part.states))
            for place, result in zip(places, found, strict=True):
                results[place] = result
        return results


def load(model: str, device: str, compute_type: str, *, cpu_threads: int = 0) -> FasterWhisperBackend:
    """Load a directory in CTranslate2's format, or in Hugging Face's (converted once into the cache).

    Args:
        model: the directory.
        device: auto (the first GPU where there is one), cpu, cuda or cuda:N.
        compute_type: auto is float16 on a GPU (float32 where it has none) and float32 on the CPU: as accurate as the
            model is. int8_float32 is the quicker choice for large models on a CPU.
        cpu_threads: of the model on the CPU, and of the spectrograms; 0 means all that this process may use.

    Raises:
        BackendUnavailable: ctranslate2 is not installed.
        DeviceUnavailable, UnsupportedOption: no such device; the device cannot compute in that type.
        ModelNotFound, ModelFormatError: files are missing or not what they should be.
        DeviceOutOfMemory, DeviceFailed: while loading.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise BackendUnavailable(f"faster-whisper needs ctranslate2 ({error}): pip install nightscribe") from error

    device = resolve_device(device)
    kind, _, number = device.partition(":")
    compute_type = resolve_compute_type(compute_type, kind, int(number or 0))
    directory = _ct2_directory(model)
    threads = cpu_threads or usable_cores()
    small = (directory / "model.bin").stat().st_size < SMALL_MODEL_BYTES
    replicas = threads if kind == "cpu" and small else 1
    with device_errors(device):
        try:
            whisper = ctranslate2.models.Whisper(
                str(directory),
                kind,
                device_index=int(number or 0),
                compute_type=compute_type,
                inter_threads=replicas,
                intra_threads=threads // replicas,
            )
        except (RuntimeError, ValueError, TypeError) as error:
            if is_device_error(error):
                raise
            raise ModelFormatError(f"{directory} is not a Whisper model that ctranslate2 can read: {error}") from error
    tokens = TokenTable.from_tokenizer_file(_tokenizer_file(directory), multilingual=bool(whisper.is_multilingual))
    return FasterWhisperBackend(
        whisper, model=model, device=device, tokens=tokens, cpu_threads=threads, replicas=replicas
    )


def _ct2_directory(model: str) -> Path:
    directory = Path(model)
    if (directory / "model.bin").is_file():
        return directory
    if not directory.exists():
        raise ModelNotFound(f"{model} does not exist: fetch a model with: nightscribe models fetch NAME")
    from stt_engine.models import ct2_dir

    return ct2_dir(directory)


def _tokenizer_file(directory: Path) -> Path:
    """Beside the weights, or in the Hugging Face directory that holds them: ctranslate2's converter leaves it out."""
    beside, above = directory / "tokenizer.json", directory.parent / "tokenizer.json"
    return above if above.is_file() and not beside.is_file() else beside


def _window_tokens(result: Any) -> WindowTokens:
    tokens = tuple(result.sequences_ids[0])
    # ctranslate2 divides the sum (<|endoftext|> included) by the number of tokens without it: length_penalty is 1.
    sum_logprob = result.scores[0] * len(tokens)
    avg_logprob = sum_logprob / (len(tokens) + 1) if tokens else 0.0
    return WindowTokens(tokens=tokens, avg_logprob=float(avg_logprob), no_speech_prob=float(result.no_speech_prob))


def _mel_frames(n_samples: int) -> int:
    """Frames with audio, two to each position of the encoder; at least one position, or nothing can be aligned."""
    return 2 * math.ceil(n_samples / _SAMPLES_PER_POSITION)


def _check_counts(encoded: Encoded, *others: Sequence[object]) -> None:
    if any(len(other) != encoded.n_windows for other in others):
        raise ValueError(f"{encoded.n_windows} windows encoded, but {[len(other) for other in others]} asked for")
