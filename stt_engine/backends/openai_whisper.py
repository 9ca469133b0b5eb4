"""The openai-whisper backend: an OpenAI `.pt`, or a directory in Hugging Face format with its weights renamed.

Weights, layers and encoder are `whisper.model.Whisper`'s, the vocabulary is `whisper.tokenizer`'s; tokens are written
and timed by `torch_decoding` and `torch_alignment`. Audio comes as samples, so ffmpeg is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stt_engine.backends.base import Backend
from stt_engine.backends.openai_weights import OpenAIWeights, read_weights
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


class OpenAIWhisperBackend(TorchBackend):
    name: ClassVar[BackendName] = "openai-whisper"

    def __init__(self, whisper: Any, **loaded: Any) -> None:
        super().__init__(**loaded)
        self._encoder: Any = whisper.encoder

    def _encode(self, mel: torch.Tensor) -> torch.Tensor:
        import torch

        encoder = self._encoder
        # As AudioEncoder.forward, which refuses any other length than 3,000 frames.
        x = torch.nn.functional.gelu(encoder.conv1(mel))
        # Contiguous, or every layer walks it across the grain: a quarter of the encoder's time on a GPU.
        x = torch.nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1).contiguous()
        x = (x + encoder.positional_embedding[: x.shape[1]]).to(x.dtype)
        for block in encoder.blocks:
            x = block(x)
        states: torch.Tensor = encoder.ln_post(x)
        return states

    def _drop_model(self) -> None:
        self._encoder = None


def load(model: str, device: str, compute_type: str, *, cpu_threads: int = 0) -> Backend:
    """Load an OpenAI `.pt` file or a directory in Hugging Face format; nothing is written or asked of the network.

    Args:
        model: the file or directory.
        device: auto, cpu, cuda or cuda:N.
        compute_type: auto (float16 on CUDA, float32 on the CPU), float32, float16 or bfloat16.
        cpu_threads: torch's threads in this process; 0 leaves the choice to `set_cpu_threads`.

    Raises:
        BackendUnavailable: torch or openai-whisper is not installed.
        ModelNotFound, ModelFormatError: it is not there, or not one of these formats; names what is missing.
        DeviceUnavailable, UnsupportedOption: no such device, or a compute type that this backend has not.
        DeviceOutOfMemory, DeviceFailed: the weights do not fit, or the device fails.
    """
    try:
        import torch  # noqa: F401
        import whisper  # noqa: F401
    except ImportError as error:
        raise missing_package("openai-whisper", error) from error
    from whisper.tokenizer import get_tokenizer

    on = torch_device(device)
    dtype = torch_dtype(compute_type, on, "openai-whisper")
    layout = check_serves(Path(model), "openai-whisper")
    threads = set_cpu_threads(cpu_threads, on)
    with device_errors(str(on), f"loading {model}"):
        weights = read_weights(layout)
        model_of_openai = build(weights, model)
        _convert(model_of_openai, dtype)
        model_of_openai.to(on)
    multilingual = model_of_openai.is_multilingual
    tokenizer = get_tokenizer(multilingual, num_languages=model_of_openai.num_languages)
    return OpenAIWhisperBackend(
        model_of_openai,
        model=model,
        device=on,
        dtype=dtype,
        cpu_threads=threads,
        n_mels=weights.dims["n_mels"],
        tokens=TokenTable.from_openai_tokenizer(tokenizer, multilingual),
        decoder=decoder_modules(model_of_openai, weights.alignment_heads),
    )


def build(weights: OpenAIWeights, source: str) -> Any:
    """A `whisper.model.Whisper` in float32 on the CPU, ready to run. Raises ModelFormatError when weights lack."""
    from whisper.model import ModelDimensions, Whisper

    try:
        model = Whisper(ModelDimensions(**weights.dims))
        model.load_state_dict(dict(weights.tensors))
    except (RuntimeError, TypeError) as error:
        raise ModelFormatError(f"{source} does not hold the weights of a Whisper: {error}") from error
    return model.eval().requires_grad_(False)


def _convert(model: Any, dtype: torch.dtype) -> None:
    """Hold the weights in `dtype`, once, instead of casting each at each call; openai's LayerNorm works in float32."""
    from whisper.model import LayerNorm

    for module in model.modules():
        if not isinstance(module, LayerNorm):
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if not tensor.is_sparse:
                    tensor.data = tensor.data.to(dtype)


def decoder_modules(model: Any, heads: tuple[tuple[int, int], ...]) -> DecoderModules:
    """The text decoder of a `whisper.model.Whisper`, taken apart."""
    import torch

    from stt_engine.backends.torch_decoder import DecoderLayer, DecoderModules

    decoder = model.decoder
    embedding = decoder.token_embedding.weight

    def project(hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(hidden, embedding)

    return DecoderModules(
        embed=decoder.token_embedding,
        positions=decoder.positional_embedding,
        layers=tuple(
            DecoderLayer(
                text_norm=block.attn_ln,
                text_query=block.attn.query,
                text_key=block.attn.key,
                text_value=block.attn.value,
                text_out=block.attn.out,
                audio_norm=block.cross_attn_ln,
                audio_query=block.cross_attn.query,
                audio_key=block.cross_attn.key,
                audio_value=block.cross_attn.value,
                audio_out=block.cross_attn.out,
                mlp_norm=block.mlp_ln,
                mlp=block.mlp,
            )
            for block in decoder.blocks
        ),
        norm=decoder.ln,
        project=project,
        n_heads=model.dims.n_text_head,
        alignment_heads=heads,
    )
