"""Whisper models of any size without anybody's weights: random layers that recite a script.

What a model of this size costs does not depend on what it says, but what it says decides how often it is asked: a model
that doubts itself is decoded six times. So the layers are random and do all their arithmetic, and the decoder's
position embeddings, much larger than what the layers add, name the token to write next: always the same script of
`n_tokens` tokens, in every backend, sure of itself, whatever it hears.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stt_engine.tokens import TokenTable

SIZES: Mapping[str, Mapping[str, int]] = {
    "base": {
        "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
        "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "num_mel_bins": 80,
    },
    "large-v3-turbo": {
        "d_model": 1280, "encoder_layers": 32, "decoder_layers": 4, "encoder_attention_heads": 20,
        "decoder_attention_heads": 20, "encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120, "num_mel_bins": 128,
    },
    "large-v3": {
        "d_model": 1280, "encoder_layers": 32, "decoder_layers": 32, "encoder_attention_heads": 20,
        "decoder_attention_heads": 20, "encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120, "num_mel_bins": 128,
    },
}  # fmt: skip
LANGUAGE = "ko"
_LOUDNESS = 250.0
"""The length of a position's embedding; the layers of the largest model add some 100 in random directions."""


def write_model(folder: Path, size: str, like: Path, *, n_tokens: int = 100, device: str = "cpu") -> Path:
    """A model in Hugging Face's format in `folder`, with the vocabulary of the model in `like`; bfloat16, seeded."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "preprocessor_config.json",
                 "vocab.json", "merges.txt", "normalizer.json", "added_tokens.json",
                 "generation_config.json"):  # fmt: skip
        if (like / name).exists():
            shutil.copy(like / name, folder / name)
    config = WhisperConfig.from_pretrained(like)
    for key, value in SIZES[size].items():
        setattr(config, key, value)
    _set_mels(folder, config.num_mel_bins)
    _set_heads(folder, config)
    torch.manual_seed(0)
    with torch.device(device), torch.inference_mode():
        whisper = WhisperForConditionalGeneration(config).eval()
        decoder: Any = whisper.get_decoder()
        vectors = torch.nn.functional.normalize(torch.randn(config.vocab_size, config.d_model), dim=1)
        decoder.embed_tokens.weight.copy_(vectors)
        table = TokenTable.from_tokenizer_file(like / "tokenizer.json")
        positions = torch.nn.functional.normalize(torch.randn(config.max_target_positions, config.d_model), dim=1)
        recited = torch.tensor(script(table, n_tokens))
        positions[: len(recited)] = vectors[recited]
        decoder.embed_positions.weight.copy_(positions * _LOUDNESS)
        whisper.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(_generation_config(folder, like)))
    return folder


def script(table: TokenTable, n_tokens: int) -> Sequence[int]:
    """By position, the token that comes next: the language, the task, then a stamp, text and a stamp, then the end."""
    words = [token for token in range(1_000, 50_000) if token not in table.suppressed and _is_word(table, token)]
    text = words[:: len(words) // n_tokens][: n_tokens - 2]
    last_stamp = table.timestamp_begin + 1500
    return [table.language_ids[LANGUAGE], table.transcribe, table.timestamp_begin, *text, last_stamp, table.eot]


def _is_word(table: TokenTable, token: int) -> bool:
    text = table.decode([token])
    return len(text) > 3 and text[0] == " " and text[1:].isascii() and text[1:].isalpha()


def _generation_config(folder: Path, like: Path) -> dict[str, Any]:
    wanted: dict[str, Any] = json.loads((like / "generation_config.json").read_text())
    heads = json.loads((folder / "heads.json").read_text())
    (folder / "heads.json").unlink()
    return wanted | {"alignment_heads": heads}


def _set_heads(folder: Path, config: Any) -> None:
    last = config.decoder_layers - 1
    heads = [[last, head] for head in range(min(6, config.decoder_attention_heads))]
    (folder / "heads.json").write_text(json.dumps(heads))


def _set_mels(folder: Path, n_mels: int) -> None:
    path = folder / "preprocessor_config.json"
    found = json.loads(path.read_text()) | {"feature_size": n_mels}
    found.pop("mel_filters", None)
    path.write_text(json.dumps(found))
