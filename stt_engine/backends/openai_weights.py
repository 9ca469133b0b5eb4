"""Weights under openai-whisper's names, from its own `.pt` files or renamed from the Hugging Face format."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stt_engine.backends.hf_directory import alignment_heads, later_half, read_json
from stt_engine.errors import ModelFormatError
from stt_engine.models import Form, ModelLayout

if TYPE_CHECKING:
    from torch import Tensor

_DIMENSIONS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
"""Fields of `whisper.model.ModelDimensions` and the keys of config.json that hold them."""

_RENAMED = (
    (".layers.", ".blocks."),
    (".self_attn_layer_norm.", ".attn_ln."),
    (".encoder_attn_layer_norm.", ".cross_attn_ln."),
    (".final_layer_norm.", ".mlp_ln."),
    (".self_attn.", ".attn."),
    (".encoder_attn.", ".cross_attn."),
    (".q_proj.", ".query."),
    (".k_proj.", ".key."),
    (".v_proj.", ".value."),
    (".out_proj.", ".out."),
    (".fc1.", ".mlp.0."),
    (".fc2.", ".mlp.2."),
    ("encoder.layer_norm.", "encoder.ln_post."),
    ("decoder.layer_norm.", "decoder.ln."),
    (".embed_tokens.weight", ".token_embedding.weight"),
    (".embed_positions.weight", ".positional_embedding"),
)


@dataclass(frozen=True, slots=True)
class OpenAIWeights:
    """All that `whisper.model.Whisper` is made of."""

    dims: Mapping[str, int]
    """Fields of `whisper.model.ModelDimensions`."""
    tensors: Mapping[str, Tensor]
    alignment_heads: tuple[tuple[int, int], ...]


def read_weights(layout: ModelLayout) -> OpenAIWeights:
    """The weights of a model's directory or `.pt` file; Hugging Face format is renamed in memory.

    Raises ModelFormatError when they are of another form, damaged, or not a Whisper's.
    """
    if Form.HUGGING_FACE in layout.forms:
        return _read_hugging_face(layout.path, layout.weights)
    if Form.OPENAI in layout.forms:
        path = layout.path if layout.path.is_file() else next(layout.path.glob("*.pt"))
        return _read_checkpoint(path)
    raise AssertionError(f"{layout.path}: `check_serves` comes before")


def openai_name(hf_name: str) -> str | None:
    """`model.decoder.layers.0.fc1.weight` to `decoder.blocks.0.mlp.0.weight`; None for the tied output weights."""
    if hf_name == "proj_out.weight":
        return None
    name = hf_name.removeprefix("model.")
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    return name


def _read_hugging_face(directory: Path, files: tuple[Path, ...]) -> OpenAIWeights:
    config = read_json(directory / "config.json")
    if missing := [key for key in _DIMENSIONS.values() if not isinstance(config.get(key), int)]:
        raise ModelFormatError(f"{directory}/config.json does not say {', '.join(missing)}")
    dims = {ours: int(config[theirs]) for ours, theirs in _DIMENSIONS.items()}
    tensors = {
        renamed: tensor
        for path in files
        for name, tensor in _read_tensors(path).items()
        if (renamed := openai_name(name)) is not None
    }
    heads = alignment_heads(directory, dims["n_text_layer"], dims["n_text_head"])
    return OpenAIWeights(dims=dims, tensors=tensors, alignment_heads=heads)


def _read_checkpoint(path: Path) -> OpenAIWeights:
    checkpoint = _load_torch(path)
    try:
        dims = {name: int(checkpoint["dims"][name]) for name in _DIMENSIONS}
        tensors: Mapping[str, Tensor] = checkpoint["model_state_dict"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path} is no OpenAI checkpoint: {type(error).__name__}: {error}") from error
    return OpenAIWeights(dims=dims, tensors=tensors, alignment_heads=_published_heads(path, dims))


def _published_heads(path: Path, dims: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """Those of a published model, known by its file's name as in `whisper.load_model`; else of the later half."""
    import base64
    import gzip

    import numpy as np
    from whisper import _ALIGNMENT_HEADS

    shape = dims["n_text_layer"], dims["n_text_head"]
    packed = _ALIGNMENT_HEADS.get(path.stem)
    if packed is None:
        return later_half(*shape)
    chosen = np.frombuffer(gzip.decompress(base64.b85decode(packed)), dtype=bool)
    if chosen.size != shape[0] * shape[1]:
        return later_half(*shape)  # another model under a published name
    return tuple((int(layer), int(head)) for layer, head in np.argwhere(chosen.reshape(shape)))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        loaded: dict[str, Tensor] = _load_torch(path)
        return loaded
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(f"{path} cannot be read as safetensors: {error}") from error


def _load_torch(path: Path) -> Any:
    """Never runs code from the file."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelFormatError(f"{path} cannot be read by torch: {reason}") from error
