"""The transformers backend: a Whisper in Hugging Face format, in float32, float16 or bfloat16.

Weights, layers and encoder are `transformers.WhisperForConditionalGeneration`'s; tokens are written and timed by
`torch_decoding` and `torch_alignment`, whose rules do not depend on generation_config.json.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stt_engine.backends.base import Backend
from stt_engine.backends.hf_directory import alignment_heads
from stt_engine.backends.torch_backend import TorchBackend
from stt_engine.backends.torch_device import (
    device_errors,
    missing_package,
    set_cpu_threads,
    torch_device,
    torch_dtype,
)
from stt_engine.errors import ModelFormatError
from stt_engine.models import check_serves
from stt_engine.tokens import TokenTable
from stt_engine.types import BackendName

if TYPE_CHECKING:
    import torch

    from stt_engine.backends.torch_decoder import DecoderModules


class TransformersBackend(TorchBackend):
    name: ClassVar[BackendName] = "transformers"

    def __init__(self, whisper: Any, **loaded: Any) -> None:
        super().__init__(**loaded)
        self._encoder: Any = whisper.get_encoder()

    def _encode(self, mel: torch.Tensor) -> torch.Tensor:
        import torch

        encoder = self._encoder
        # As WhisperEncoder.forward, which refuses any other length than 3,000 frames.
        x = torch.nn.functional.gelu(encoder.conv1(mel))
        # Contiguous, or every layer walks it across the grain: a quarter of the encoder's time on a GPU.
        x = torch.nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1).contiguous()
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        for layer in encoder.layers:
            x = layer(x, None)
        states: torch.Tensor = encoder.layer_norm(x)
        return states

    def _drop_model(self) -> None:
        self._encoder = None


def load(model: str, device: str, compute_type: str, *, cpu_threads: int = 0) -> Backend:
    """Load a directory in Hugging Face format; nothing is asked of the network.

    Args:
        model: the directory.
        device: auto, cpu, cuda or cuda:N.
        compute_type: auto (float16 on CUDA, float32 on the CPU), float32, float16 or bfloat16.
        cpu_threads: torch's threads in this process; 0 leaves the choice to `set_cpu_threads`.

    Raises:
        BackendUnavailable: torch or transformers is not installed.
        ModelNotFound, ModelFormatError: not there, or no Whisper in this format; names what is missing.
        DeviceUnavailable, UnsupportedOption: no such device, or a compute type that this backend has not.
        DeviceOutOfMemory, DeviceFailed: the weights do not fit, or the device fails.
    """
    try:
        import torch  # noqa: F401
        from safetensors import SafetensorError
        from transformers import WhisperForConditionalGeneration
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise missing_package("transformers", error) from error

    on = torch_device(device)
    dtype = torch_dtype(compute_type, on, "transformers")
    directory = Path(model)
    check_serves(directory, "transformers")
    threads = set_cpu_threads(cpu_threads, on)
    disable_progress_bar: Any = transformers_logging.disable_progress_bar
    disable_progress_bar()  # a bar for each worker's load would tear the run's own
    with device_errors(str(on), f"loading {model}"):
        try:
            loaded: Any = WhisperForConditionalGeneration.from_pretrained(
                directory, local_files_only=True, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
            )
            whisper, found = loaded
        except pickle.UnpicklingError as error:  # whose own message says how to run what is in there
            raise ModelFormatError(
                f"{model} holds more than weights in its pytorch_model.bin, and nothing of that is run; take a model "
                "in safetensors"
            ) from error
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelFormatError(f"{model} cannot be read by transformers: {error}") from error
        if absent := sorted(set(found["missing_keys"]) - {"proj_out.weight"}):
            # transformers only warns, and leaves noise in their place.
            raise ModelFormatError(f"{model} lacks {len(absent)} of a Whisper's weights, {absent[0]} among them")
        whisper = whisper.eval().requires_grad_(False).to(on)
    return TransformersBackend(
        whisper,
        model=model,
        device=on,
        dtype=dtype,
        cpu_threads=threads,
        n_mels=whisper.config.num_mel_bins,
        tokens=TokenTable.from_tokenizer_file(directory / "tokenizer.json"),
        decoder=decoder_modules(
            whisper, alignment_heads(directory, whisper.config.decoder_layers, whisper.config.decoder_attention_heads)
        ),
    )


def decoder_modules(whisper: Any, heads: tuple[tuple[int, int], ...]) -> DecoderModules:
    """The text decoder of a `WhisperForConditionalGeneration`, taken apart."""
    from stt_engine.backends.torch_decoder import DecoderLayer, DecoderModules

    decoder = whisper.get_decoder()

    def mlp_of(layer: Any) -> Any:
        return lambda x: layer.fc2(layer.activation_fn(layer.fc1(x)))

    return DecoderModules(
        embed=decoder.embed_tokens,
        positions=decoder.embed_positions.weight,
        layers=tuple(
            DecoderLayer(
                text_norm=layer.self_attn_layer_norm,
                text_query=layer.self_attn.q_proj,
                text_key=layer.self_attn.k_proj,
                text_value=layer.self_attn.v_proj,
                text_out=layer.self_attn.out_proj,
                audio_norm=layer.encoder_attn_layer_norm,
                audio_query=layer.encoder_attn.q_proj,
                audio_key=layer.encoder_attn.k_proj,
                audio_value=layer.encoder_attn.v_proj,
                audio_out=layer.encoder_attn.out_proj,
                mlp_norm=layer.final_layer_norm,
                mlp=mlp_of(layer),
            )
            for layer in decoder.layers
        ),
        norm=decoder.layer_norm,
        project=whisper.proj_out,
        n_heads=whisper.config.decoder_attention_heads,
        alignment_heads=heads,
    )
