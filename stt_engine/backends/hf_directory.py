"""What the torch backends read of a directory in Hugging Face format besides its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stt_engine.errors import ModelFormatError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelFormatError when it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelFormatError(f"{path} holds no JSON object")
    return content


def alignment_heads(directory: Path, n_layers: int, n_heads: int) -> tuple[tuple[int, int], ...]:
    """(layer, head) pairs whose attention follows the speech, as generation_config.json names them.

    Where it names none, all heads of the later half of the layers, as openai-whisper does.
    Raises ModelFormatError when it names heads that the model does not have.
    """
    path = directory / "generation_config.json"
    named = read_json(path).get("alignment_heads") if path.is_file() else None
    if not named:
        return later_half(n_layers, n_heads)
    try:
        heads = tuple((int(layer), int(head)) for layer, head in named)
    except (TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}: alignment_heads is no list of [layer, head]: {error}") from error
    if any(not (0 <= layer < n_layers and 0 <= head < n_heads) for layer, head in heads):
        raise ModelFormatError(f"{path}: alignment_heads names a head that {n_layers} layers of {n_heads} do not have")
    return heads


def later_half(n_layers: int, n_heads: int) -> tuple[tuple[int, int], ...]:
    return tuple((layer, head) for layer in range(n_layers // 2, n_layers) for head in range(n_heads))
