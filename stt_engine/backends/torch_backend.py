"""What both torch backends do alike: everything after loading.

Imports torch inside its methods: this module must import without it, so that a backend can say what is missing.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from stt_engine.backends.base import USUAL_BATCH, Backend
from stt_engine.backends.torch_device import device_errors, free_bytes
from stt_engine.errors import UnsupportedOption
from stt_engine.mel import FRAMES_PER_WINDOW, fitting_frames, log_mel
from stt_engine.tokens import TokenTable
from stt_engine.types import Samples, Word
from stt_engine.windows import Encoded, WindowRequest, WindowTokens

if TYPE_CHECKING:
    import torch

    from stt_engine.backends.torch_decoder import DecoderModules
    from stt_engine.backends.torch_graphs import StepGraphs
    from stt_engine.backends.torch_mel import DeviceMel


class TorchBackend(Backend):
    """A Whisper of torch modules; `Encoded.states` is `(windows, positions, d_model)`, 50 positions a second."""

    supports_beam: ClassVar[bool] = False

    def __init__(
        self,
        *,
        model: str,
        device: torch.device,
        dtype: torch.dtype,
        cpu_threads: int,
        n_mels: int,
        tokens: TokenTable,
        decoder: DecoderModules,
    ) -> None:
        self.model = model
        self.device = str(device)
        self.compute_type = str(dtype).removeprefix("torch.")
        self.tokens = tokens
        self._torch_device = device
        self._dtype = dtype
        self._cpu_threads = cpu_threads
        self._n_mels = n_mels
        self._decoder: DecoderModules | None = decoder
        self._mel: DeviceMel | None = None
        self._graphs: StepGraphs | None = None
        if device.type == "cuda":
            from stt_engine.backends.torch_graphs import StepGraphs
            from stt_engine.backends.torch_mel import DeviceMel

            self._mel = DeviceMel(n_mels, device)
            self._graphs = StepGraphs(device)

    @abstractmethod
    def _encode(self, mel: torch.Tensor) -> torch.Tensor:
        """The encoder: `(windows, n_mels, n_frames)` to `(windows, n_frames / 2, d_model)`; at most 3,000 frames."""

    @abstractmethod
    def _drop_model(self) -> None:
        """Let go of the model."""

    @property
    def _modules(self) -> DecoderModules:
        if self._decoder is None:
            raise RuntimeError(f"the {self.name} backend of {self.model} is closed")
        return self._decoder

    def stage(self, windows: Sequence[Samples]) -> None:
        if self._mel is not None:
            self._mel.stage(windows, FRAMES_PER_WINDOW)

    def give_back(self) -> None:
        import gc

        import torch

        gc.collect()
        if self._torch_device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def encodes_ahead(self) -> bool:
        return self._mel is not None

    @property
    def usual_batch(self) -> int:
        return self._modules.windows_in(free_bytes(self._torch_device)) if self._mel is not None else USUAL_BATCH

    def encode(self, windows: Sequence[Samples], *, fit: bool = False) -> Encoded:
        import torch

        n_frames = fitting_frames(windows) if fit else FRAMES_PER_WINDOW
        with torch.inference_mode(), device_errors(self.device, f"encoding {len(windows)} windows"):
            if self._mel is not None:
                mel = self._mel(windows, n_frames).to(self._dtype)
            else:
                began_s = time.perf_counter()
                reckoned = log_mel(windows, self._n_mels, n_frames=n_frames, threads=self._cpu_threads)
                self.mel_s += time.perf_counter() - began_s
                mel = torch.from_numpy(reckoned).to(self._dtype)
            states = self._encode(mel)
        return Encoded(states=states, n_windows=len(windows), n_samples=tuple(len(samples) for samples in windows))

    def select(self, encoded: Encoded, indices: Sequence[int]) -> Encoded:
        with device_errors(self.device, f"selecting {len(indices)} windows"):
            states = encoded.states[list(indices)]
        return Encoded(
            states=states, n_windows=len(indices), n_samples=tuple(encoded.n_samples[index] for index in indices)
        )

    def detect_languages(self, encoded: Encoded) -> list[Mapping[str, float]]:
        from stt_engine.backends.torch_decoding import language_probabilities

        with device_errors(self.device, f"naming the language of {encoded.n_windows} windows"):
            return language_probabilities(self._modules, self.tokens, encoded.states)

    def decode(
        self,
        encoded: Encoded,
        requests: Sequence[WindowRequest],
        *,
        temperature: float = 0.0,
        beam_size: int = 1,
        seed: int = 0,
    ) -> list[WindowTokens]:
        from stt_engine.backends.torch_decoding import decode_windows

        if beam_size > 1:
            raise UnsupportedOption(f"beam_size={beam_size}: the {self.name} backend decodes greedily; use 1")
        _check_one_each(encoded, requests)
        with device_errors(self.device, f"decoding {encoded.n_windows} windows"):
            return decode_windows(
                self._modules,
                self.tokens,
                encoded.states,
                [self.tokens.prompt(request) for request in requests],
                [request.timestamps for request in requests],
                temperature=temperature,
                seed=seed,
                graphs=self._graphs,
            )

    def align(
        self, encoded: Encoded, requests: Sequence[WindowRequest], tokens: Sequence[Sequence[int]]
    ) -> list[tuple[Word, ...]]:
        from stt_engine.backends.torch_alignment import align_windows

        _check_one_each(encoded, requests)
        with device_errors(self.device, f"timing the words of {encoded.n_windows} windows"):
            return align_windows(self._modules, self.tokens, encoded.states, encoded.n_samples, requests, tokens)

    def close(self) -> None:
        import gc

        import torch

        self._decoder = self._graphs = None
        if self._mel is not None:
            self._mel.close()
            self._mel = None
        self._drop_model()
        gc.collect()
        if self._torch_device.type == "cuda":
            torch.cuda.empty_cache()


def _check_one_each(encoded: Encoded, requests: Sequence[WindowRequest]) -> None:
    if len(requests) != encoded.n_windows:
        raise ValueError(f"{len(requests)} requests for {encoded.n_windows} windows")
