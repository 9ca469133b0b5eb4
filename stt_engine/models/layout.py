"""What a model's directory holds, and what it lacks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from stt_engine.errors import AccessDenied, ModelFormatError, ModelNotFound

SAFETENSORS, TORCH_WEIGHTS = "model.safetensors", "pytorch_model.bin"
CT2_WEIGHTS = "model.bin"
CT2_FOLDER = "ct2"
"""Where a directory in Hugging Face format may hold its CTranslate2 form."""

_LFS_POINTER = b"version https://git-lfs"


class Form(StrEnum):
    HUGGING_FACE = "hugging-face"
    """config.json, model.safetensors (or pytorch_model.bin, or shards with an index), tokenizer.json."""
    CTRANSLATE2 = "ctranslate2"
    """model.bin, vocabulary.json or .txt, tokenizer.json."""
    OPENAI = "openai"
    """One `.pt` file."""


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """A complete model on this machine."""

    path: Path
    forms: frozenset[Form]
    weights: tuple[Path, ...]
    """The files that make the model what it is, of its foremost form (in the order of `Form`)."""
    ct2: Path | None
    """The directory that CTranslate2 would open, where there is one."""


def check_serves(path: Path, backend: str) -> ModelLayout:
    """Raise ModelFormatError where the model at `path` has no form that this backend reads; "auto" takes any."""
    layout = read_layout(path)
    if backend == "transformers" and Form.HUGGING_FACE not in layout.forms:
        raise ModelFormatError(
            f"{path} is not in Hugging Face format, which is all that transformers reads; "
            "a CTranslate2 directory serves faster-whisper, a .pt file openai-whisper"
        )
    if backend == "openai-whisper" and not {Form.HUGGING_FACE, Form.OPENAI} & layout.forms:
        raise ModelFormatError(
            f"{path} holds a CTranslate2 conversion alone, which the faster-whisper backend reads; "
            "openai-whisper needs a .pt file or Hugging Face format"
        )
    return layout


def read_layout(path: Path) -> ModelLayout:
    """Which forms stand at `path`, each complete.

    Raises ModelNotFound (nothing there), ModelFormatError (incomplete, or no Whisper) and AccessDenied.
    """
    try:
        if path.is_dir():
            return _read_directory(path)
        if not path.exists():
            raise ModelNotFound(f"there is no model at {path}")
        with path.open("rb") as file:
            file.read(1)
    except PermissionError as error:
        raise AccessDenied(f"the model {path} cannot be read: {error.strerror}. Change its permissions.") from error
    if path.suffix != ".pt":
        raise ModelFormatError(
            f"{path} is a file, and not one of OpenAI's .pt checkpoints. Name the directory that holds the model."
        )
    return ModelLayout(path, frozenset({Form.OPENAI}), (path,), None)


def _read_directory(folder: Path) -> ModelLayout:
    config = _read_json(folder / "config.json")
    checkpoints = sorted(folder.glob("*.pt"))
    weights = _hugging_face_weights(folder)
    missing: list[str] = []
    forms: dict[Form, tuple[Path, ...]] = {}
    ct2: Path | None = None

    # A conversion may have put its own config.json over Hugging Face's, which names the type of model.
    kind = config.get("model_type")
    if kind is not None and kind != "whisper":
        raise ModelFormatError(f"{folder} holds a model of type {kind!r}; Nightscribe needs a Whisper.")
    if kind == "whisper":
        missing = _missing_hugging_face(folder, weights)
        if not missing:
            forms[Form.HUGGING_FACE] = weights
    for place in (folder, folder / CT2_FOLDER):
        if ct2 is None and (place / CT2_WEIGHTS).exists():
            lacking = _missing_ct2(place)
            if lacking:
                missing += lacking if place == folder else [f"{CT2_FOLDER}/{name}" for name in lacking]
            else:
                ct2 = place
                forms[Form.CTRANSLATE2] = (place / CT2_WEIGHTS,)
    if len(checkpoints) == 1:
        forms[Form.OPENAI] = tuple(checkpoints)
    if not forms:
        if not missing and len(checkpoints) > 1:
            raise ModelFormatError(f"{folder} holds {len(checkpoints)} checkpoints; name one of the .pt files.")
        raise _incomplete(folder, missing or _missing_hugging_face(folder, weights), config)
    return ModelLayout(folder, frozenset(forms), next(forms[form] for form in Form if form in forms), ct2)


def _incomplete(folder: Path, missing: list[str], config: dict[str, Any]) -> ModelFormatError:
    """Names what is missing, and the command that gets it (`fetch` leaves files that are there as they are)."""
    origin = config.get("_name_or_path")
    name = origin if isinstance(origin, str) and origin.count("/") == 1 and origin[0] not in "./" else "NAME"
    hint = f"Get it with: nightscribe models fetch {name} {folder}"
    if name == "NAME":
        hint += " (NAME: the model that this is, e.g. large-v3-turbo)"
    if missing == ["tokenizer.json"] and (folder / "vocab.json").exists():
        hint += ", or write it from vocab.json and merges.txt with transformers' WhisperTokenizerFast"
    return ModelFormatError(f"the model directory {folder} is incomplete; missing: {', '.join(missing)}. {hint}.")


def _hugging_face_weights(folder: Path) -> tuple[Path, ...]:
    """The weight files by the usual precedence, shards in order; empty where there are none."""
    for name in (SAFETENSORS, TORCH_WEIGHTS):
        if (folder / name).exists():
            return (folder / name,)
        if index := _read_json(folder / f"{name}.index.json"):
            return tuple(folder / shard for shard in sorted(set(index.get("weight_map", {}).values())))
    return ()


def _missing_hugging_face(folder: Path, weights: tuple[Path, ...]) -> list[str]:
    missing = [] if (folder / "config.json").exists() else ["config.json"]
    missing += [fault for weight in weights if (fault := _weight_fault(weight))] if weights else [SAFETENSORS]
    return missing + ([] if (folder / "tokenizer.json").exists() else ["tokenizer.json"])


def _missing_ct2(folder: Path) -> list[str]:
    missing = [fault] if (fault := _weight_fault(folder / CT2_WEIGHTS)) else []
    if not any((folder / name).exists() for name in ("vocabulary.json", "vocabulary.txt")):
        missing.append("vocabulary.json")
    # Without it faster-whisper would ask the Hub.
    return missing + ([] if (folder / "tokenizer.json").exists() else ["tokenizer.json"])


def _weight_fault(weight: Path) -> str | None:
    """Why a weight file will not do, starting with its name; None when it looks whole."""
    if not weight.exists():
        return weight.name
    with weight.open("rb") as file:
        head = file.read(8)
        head += file.read(len(_LFS_POINTER) - 8)
        if head == _LFS_POINTER:
            return f"{weight.name} (a Git LFS pointer stands in its place; `git lfs pull` gets it)"
        if weight.suffix == ".safetensors":
            declared = _safetensors_bytes(weight, int.from_bytes(head[:8], "little"))
            if declared != weight.stat().st_size:
                return f"{weight.name} (what is there is cut short or damaged; remove it first)"
    return None


def _safetensors_bytes(weight: Path, header_bytes: int) -> int:
    """The size that a safetensors header promises, -1 where it makes no sense (format: huggingface/safetensors)."""
    if not 2 <= header_bytes <= min(100_000_000, weight.stat().st_size - 8):
        return -1
    with weight.open("rb") as file:
        file.seek(8)
        try:
            header: dict[str, Any] = json.loads(file.read(header_bytes))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return -1
    return 8 + header_bytes + max(ends, default=0)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none. Raises ModelFormatError where it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelFormatError(f"{path} is damaged (not JSON): remove it, then fetch the model again.") from error
    return content if isinstance(content, dict) else {}
