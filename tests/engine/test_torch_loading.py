"""Loading the torch backends: which models, devices and precisions, and what is said where it cannot be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stt_engine.backends import openai_whisper, transformers
from stt_engine.backends.base import Backend
from stt_engine.backends.hf_directory import alignment_heads
from stt_engine.backends.openai_weights import read_weights
from stt_engine.backends.torch_device import device_errors, set_cpu_threads, torch_device
from stt_engine.errors import (
    BackendUnavailable,
    DeviceFailed,
    DeviceOutOfMemory,
    DeviceUnavailable,
    ModelFormatError,
    ModelNotFound,
    UnsupportedOption,
    UsageError,
)
from stt_engine.models import ct2_dir, read_layout

Load = Callable[..., Backend]
LOADERS = [
    pytest.param(transformers.load, id="transformers"),
    pytest.param(openai_whisper.load, id="openai-whisper"),
]


@pytest.fixture
def copied_model(fixture_model: Path, tmp_path: Path) -> Path:
    """Hugging Face format alone."""
    folder = tmp_path / "copied"
    shutil.copytree(fixture_model, folder, ignore=shutil.ignore_patterns("ct2"))
    return folder


@pytest.fixture(scope="module")
def checkpoint(fixture_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture as OpenAI would publish it, its names turned by rules of the test's own."""
    from whisper.model import ModelDimensions, Whisper

    config = json.loads((fixture_model / "config.json").read_text())
    dims = {
        "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 128, "n_audio_head": 2, "n_audio_layer": 3,
        "n_vocab": 51865, "n_text_ctx": 448, "n_text_state": 128, "n_text_head": 2, "n_text_layer": 2,
    }  # fmt: skip
    assert config["d_model"] == 128
    theirs = load_file(fixture_model / "model.safetensors")
    state = {}
    for name in Whisper(ModelDimensions(**dims)).state_dict():
        part = name.split(".")
        if "blocks" not in part:
            renamed = {
                "positional_embedding": "embed_positions.weight",
                "token_embedding": "embed_tokens",
                "ln_post": "layer_norm",
                "ln": "layer_norm",
            }.get(part[1], part[1])
            state[name] = theirs[".".join(["model", part[0], renamed, *part[2:]])]
            continue
        kind, number, inner = part[0], part[2], part[3:]
        attention = {"attn": "self_attn", "cross_attn": "encoder_attn"}
        if inner[0] in attention:
            projection = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}[inner[1]]
            renamed = f"{attention[inner[0]]}.{projection}"
        elif inner[0] == "mlp":
            renamed = {"0": "fc1", "2": "fc2"}[inner[1]]
        else:
            renamed = {
                "attn_ln": "self_attn_layer_norm",
                "cross_attn_ln": "encoder_attn_layer_norm",
                "mlp_ln": "final_layer_norm",
            }[inner[0]]
        state[name] = theirs[f"model.{kind}.layers.{number}.{renamed}.{inner[-1]}"]
    path = tmp_path_factory.mktemp("openai") / "fixture.pt"
    torch.save({"dims": dims, "model_state_dict": state}, path)
    return path


def noise() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(0, 0.05, 48_000).astype(np.float32)


def test_all_forms_encode_alike(fixture_model: Path, checkpoint: Path) -> None:
    """Weights renamed from Hugging Face format, an OpenAI checkpoint, and transformers itself."""
    renamed = openai_whisper.load(str(fixture_model), "cpu", "float32", cpu_threads=1)
    native = openai_whisper.load(str(checkpoint), "cpu", "float32", cpu_threads=1)
    theirs = transformers.load(str(fixture_model), "cpu", "float32", cpu_threads=1)
    states = [backend.encode([noise()]).states for backend in (renamed, native, theirs)]
    assert torch.equal(states[0], states[1])
    assert torch.allclose(states[0], states[2], atol=1e-3)
    assert renamed.tokens.language_ids == theirs.tokens.language_ids
    assert renamed.tokens.suppressed == theirs.tokens.suppressed


def test_a_checkpoint_alone_in_its_folder_is_found(checkpoint: Path) -> None:
    assert openai_whisper.load(str(checkpoint.parent), "cpu", "auto", cpu_threads=1).device == "cpu"


def test_shards_and_old_weights_load(copied_model: Path, fixture_model: Path) -> None:
    expected = openai_whisper.load(str(fixture_model), "cpu", "float32", cpu_threads=1).encode([noise()]).states
    tensors = load_file(copied_model / "model.safetensors")
    (copied_model / "model.safetensors").unlink()
    torch.save(tensors, copied_model / "pytorch_model.bin")
    for load in (openai_whisper.load, transformers.load):
        old = load(str(copied_model), "cpu", "float32", cpu_threads=1)
        assert torch.allclose(old.encode([noise()]).states, expected, atol=1e-3)

    (copied_model / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, copied_model / shard, {"format": "pt"})
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    (copied_model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for load in (openai_whisper.load, transformers.load):
        sharded = load(str(copied_model), "cpu", "float32", cpu_threads=1)
        assert torch.allclose(sharded.encode([noise()]).states, expected, atol=1e-3)


@pytest.mark.parametrize("load", LOADERS)
def test_auto_on_the_cpu_is_float32(load: Load, fixture_model: Path) -> None:
    backend = load(str(fixture_model), "cpu", "auto", cpu_threads=1)
    assert (backend.device, backend.compute_type, backend.model) == ("cpu", "float32", str(fixture_model))


@pytest.mark.parametrize("load", LOADERS)
def test_a_compute_type_it_has_not_is_a_usage_error_that_names_those_it_has(load: Load, fixture_model: Path) -> None:
    with pytest.raises(UnsupportedOption, match=r"int8_float16.*float32, float16, bfloat16") as caught:
        load(str(fixture_model), "cpu", "int8_float16")
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize("load", LOADERS)
def test_no_cuda_device_is_said(load: Load, fixture_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailable, match="use device cpu"):
        load(str(fixture_model), "cuda", "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceUnavailable, match="sees 2 CUDA devices"):
        load(str(fixture_model), "cuda:2", "auto")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0", "cuda:", ""])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(DeviceUnavailable, match="auto, cpu, cuda or cuda:N"):
        torch_device(device)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(load: Load, name: str, copied_model: Path) -> None:
    (copied_model / name).unlink()
    with pytest.raises(ModelFormatError, match=name):
        load(str(copied_model), "cpu", "auto")


@pytest.mark.parametrize("load", LOADERS)
def test_missing_weights_are_named_and_not_made_up(load: Load, copied_model: Path) -> None:
    tensors = load_file(copied_model / "model.safetensors")
    del tensors["model.decoder.layers.1.fc2.weight"]
    save_file(tensors, copied_model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFormatError, match=r"layers\.1\.fc2\.weight|blocks\.1\.mlp\.2\.weight"):
        load(str(copied_model), "cpu", "auto")


@pytest.mark.parametrize("load", LOADERS)
def test_no_model_at_all(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        load(str(tmp_path / "nowhere"), "cpu", "auto")


def test_a_conversion_alone_serves_neither(fixture_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "only-ct2"
    shutil.copytree(fixture_model / "ct2", folder)
    for load in (transformers.load, openai_whisper.load):
        with pytest.raises(ModelFormatError, match="faster-whisper"):
            load(str(folder), "cpu", "auto")


def test_a_checkpoint_does_not_serve_transformers(checkpoint: Path) -> None:
    with pytest.raises(ModelFormatError, match="openai-whisper"):
        transformers.load(str(checkpoint), "cpu", "auto")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"damaged\.pt"):
        openai_whisper.load(str(path), "cpu", "auto")


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ModelFormatError, match="no OpenAI checkpoint"):
        openai_whisper.load(str(path), "cpu", "auto")


class _Touch:
    """Runs code when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def conversion_of(model: str, device: str, compute_type: str) -> Any:
    """What faster-whisper makes of a directory in Hugging Face format."""
    return ct2_dir(model)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.pt", tmp_path / "mark"
    torch.save({"dims": _Touch(mark), "model_state_dict": {}}, path)
    with pytest.raises(ModelFormatError, match=r"evil\.pt"):
        openai_whisper.load(str(path), "cpu", "auto")
    assert not mark.exists()


@pytest.mark.parametrize("load", [*LOADERS, conversion_of])
def test_old_weights_run_no_code(load: Load, copied_model: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (copied_model / "model.safetensors").unlink()
    torch.save({"model.encoder.conv1.weight": _Touch(mark)}, copied_model / "pytorch_model.bin")
    with pytest.raises(ModelFormatError):
        load(str(copied_model), "cpu", "auto")
    assert not mark.exists()


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("package", ["torch", "transformers", "whisper"])
def test_a_missing_package_names_the_command(
    load: Load, package: str, fixture_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"torch", "transformers"} if load is transformers.load else {"torch", "whisper"}
    if package not in needed:
        monkeypatch.setitem(sys.modules, package, None)
        assert load(str(fixture_model), "cpu", "auto", cpu_threads=1).name
        return
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'nightscribe\[all\]'"):
        load(str(fixture_model), "cpu", "auto")


def test_importing_the_backends_imports_no_torch() -> None:
    script = (
        "import sys, stt_engine.backends.transformers, stt_engine.backends.openai_whisper\n"
        "print(sorted({'torch', 'transformers', 'whisper'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_alignment_heads_come_from_the_model_else_from_the_later_half(copied_model: Path) -> None:
    assert alignment_heads(copied_model, 2, 2) == ((1, 0), (1, 1))
    path = copied_model / "generation_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"alignment_heads": [[0, 1]]}))
    assert alignment_heads(copied_model, 2, 2) == ((0, 1),)
    path.write_text(json.dumps(config | {"alignment_heads": [[2, 0]]}))
    with pytest.raises(ModelFormatError, match="alignment_heads"):
        alignment_heads(copied_model, 2, 2)
    path.unlink()
    assert alignment_heads(copied_model, 4, 2) == ((2, 0), (2, 1), (3, 0), (3, 1))


def test_published_checkpoints_have_their_own_heads(checkpoint: Path, tmp_path: Path) -> None:
    assert read_weights(read_layout(checkpoint)).alignment_heads == ((1, 0), (1, 1))
    named = tmp_path / "tiny.pt"  # the name of a published model of other dimensions
    shutil.copy(checkpoint, named)
    assert read_weights(read_layout(named)).alignment_heads == ((1, 0), (1, 1))


def test_threads_are_set_and_never_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert set_cpu_threads(3, torch.device("cpu")) == 3 == torch.get_num_threads()
        monkeypatch.setattr("stt_engine.backends.torch_device.usable_cores", lambda: 8)
        assert set_cpu_threads(0, torch.device("cpu")) == 4 == torch.get_num_threads()
        monkeypatch.setattr("stt_engine.backends.torch_device.usable_cores", lambda: 1)
        assert set_cpu_threads(0, torch.device("cpu")) == 1
        assert set_cpu_threads(0, torch.device("cuda")) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), DeviceOutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), DeviceOutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), DeviceOutOfMemory),
        (MemoryError(), DeviceOutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nmore"), DeviceFailed),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceFailed),
    ],
)
def test_torchs_failures_have_our_names(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="cuda:0") as caught, device_errors("cuda:0", "decoding 4 windows"):
        raise error
    assert caught.value.__cause__ is error
    assert "decoding 4 windows" in str(caught.value)


def test_a_fault_of_ours_keeps_its_name() -> None:
    with pytest.raises(RuntimeError, match="shapes"), device_errors("cuda:0", "decoding"):
        raise RuntimeError("shapes cannot be multiplied")


def test_memory_that_is_not_there_is_said_by_the_backend(fixture_model: Path) -> None:
    backend = openai_whisper.load(str(fixture_model), "cpu", "auto", cpu_threads=1)
    with pytest.raises(DeviceOutOfMemory, match="cpu"), device_errors(backend.device, "encoding"):
        torch.empty(2**60, dtype=torch.uint8)


def test_beams_are_refused(fixture_model: Path) -> None:
    from stt_engine.windows import WindowRequest

    backend = openai_whisper.load(str(fixture_model), "cpu", "auto", cpu_threads=1)
    assert not backend.supports_beam
    with pytest.raises(UnsupportedOption, match="beam_size=5"):
        backend.decode(backend.encode([noise()]), [WindowRequest("en", "transcribe", True)], beam_size=5)
