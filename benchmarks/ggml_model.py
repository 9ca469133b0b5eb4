"""A model written as whisper.cpp reads it: `ggml_file(model)`, once per set of weights, in the cache.

The format is the one of models/convert-pt-to-ggml.py in ggml-org/whisper.cpp: little-endian; a magic number, the
dimensions, the mel filters, the vocabulary without its special tokens, then every tensor under OpenAI's name. As
there, matrices are 16-bit and the rest is 32-bit: that is what whisper.cpp's published models hold.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from whisper.audio import mel_filters
from whisper.tokenizer import get_tokenizer

from stt_engine.backends.openai_weights import OpenAIWeights, read_weights
from stt_engine.models import cache_root, check_serves, fingerprint
from stt_engine.models.cache import publish

MAGIC = 0x67676D6C
DIMENSIONS = (
    "n_vocab",
    "n_audio_ctx",
    "n_audio_state",
    "n_audio_head",
    "n_audio_layer",
    "n_text_ctx",
    "n_text_state",
    "n_text_head",
    "n_text_layer",
    "n_mels",
)
FLOAT32, FLOAT16 = 0, 1
FIRST_MULTILINGUAL_VOCABULARY = 51865
ALWAYS_FLOAT32 = ("encoder.positional_embedding", "decoder.positional_embedding")
COLUMNS = ("encoder.conv1.bias", "encoder.conv2.bias")


def ggml_file(model: Path) -> Path:
    """Raises ModelFormatError where the model has neither Hugging Face's nor OpenAI's form."""
    layout = check_serves(model, "openai-whisper")
    folder = cache_root() / "ggml" / fingerprint(model)

    def fill(partial: Path) -> None:
        with (partial / "ggml-model.bin").open("wb") as file:
            _write(file, read_weights(layout))

    return publish(folder, fill) / "ggml-model.bin"


def _write(file: BinaryIO, weights: OpenAIWeights) -> None:
    _integers(file, MAGIC, *(weights.dims[name] for name in DIMENSIONS), FLOAT16)
    filters = mel_filters("cpu", weights.dims["n_mels"]).numpy().astype("<f4")
    _integers(file, *filters.shape)
    file.write(filters.tobytes())
    multilingual = weights.dims["n_vocab"] >= FIRST_MULTILINGUAL_VOCABULARY
    ranks = get_tokenizer(multilingual).encoding._mergeable_ranks
    _integers(file, len(ranks))
    for token in sorted(ranks, key=lambda token: ranks[token]):
        _integers(file, len(token))
        file.write(token)
    for name, tensor in weights.tensors.items():
        _tensor(file, name, tensor.float().squeeze().numpy())


def _tensor(file: BinaryIO, name: str, values: np.ndarray) -> None:
    half = values.ndim >= 2 and name not in ALWAYS_FLOAT32
    if name in COLUMNS:
        values = values[:, None]
    _integers(file, values.ndim, len(name), FLOAT16 if half else FLOAT32, *reversed(values.shape))
    file.write(name.encode())
    file.write(values.astype("<f2" if half else "<f4").tobytes())


def _integers(file: BinaryIO, *values: int) -> None:
    file.write(struct.pack(f"<{len(values)}i", *values))
