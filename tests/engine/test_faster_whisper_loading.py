"""The CTranslate2 backend before its first window: directories, devices, compute types, and what it says of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import ctranslate2
import pytest

from stt_engine.backends.ctranslate2_device import device_errors, resolve_device
from stt_engine.backends.faster_whisper import load
from stt_engine.devices import usable_cores
from stt_engine.errors import (
    DeviceFailed,
    DeviceOutOfMemory,
    DeviceUnavailable,
    ModelFormatError,
    ModelNotFound,
    UnsupportedOption,
    UsageError,
)


@pytest.fixture(scope="module")
def ct2(fixture_model: Path) -> Path:
    return fixture_model / "ct2"


def test_auto_says_what_it_became(ct2: Path) -> None:
    loaded = load(str(ct2), "cpu", "auto", cpu_threads=1)
    assert (loaded.name, loaded.device, loaded.compute_type) == ("faster-whisper", "cpu", "float32")
    assert loaded.model == str(ct2)


def test_a_hugging_face_directory_loads_too(fixture_model: Path) -> None:
    loaded = load(str(fixture_model), "cpu", "float32", cpu_threads=1)
    assert loaded.model == str(fixture_model)
    assert loaded.tokens.multilingual


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu:1", "cuda:", "auto:0", ""])
def test_unknown_devices_are_refused(ct2: Path, device: str) -> None:
    with pytest.raises(DeviceUnavailable, match="choose auto, cpu, cuda or cuda:N"):
        load(str(ct2), device, "auto")


def test_a_gpu_that_is_not_there(ct2: Path) -> None:
    missing = f"cuda:{ctranslate2.get_cuda_device_count()}"
    with pytest.raises(DeviceUnavailable, match="choose --device cpu"):
        load(str(ct2), missing, "auto")
    assert issubclass(DeviceUnavailable, UsageError)


def test_auto_device_is_the_gpu_where_there_is_one() -> None:
    assert resolve_device("auto") == ("cuda" if ctranslate2.get_cuda_device_count() else "cpu")


@pytest.mark.parametrize("compute_type", ["float8", "default", ""])
def test_compute_types_that_it_has_not_name_those_it_has(ct2: Path, compute_type: str) -> None:
    with pytest.raises(UnsupportedOption, match=r"choose auto, float32, .*int8"):
        load(str(ct2), "cpu", compute_type)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nightscribe models fetch"):
        load(str(tmp_path / "nowhere"), "cpu", "auto")


def test_another_backends_form(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"not for this backend")
    with pytest.raises(ModelFormatError):
        load(str(tmp_path / "model.pt"), "cpu", "auto")


def test_weights_cut_short(ct2: Path, tmp_path: Path) -> None:
    for file in ct2.iterdir():
        if file.name != "model.bin":
            shutil.copy(file, tmp_path / file.name)
    (tmp_path / "model.bin").write_bytes((ct2 / "model.bin").read_bytes()[:10_000])
    with pytest.raises(ModelFormatError, match="ctranslate2 can read"):
        load(str(tmp_path), "cpu", "auto", cpu_threads=1)


def test_missing_tokenizer(ct2: Path, tmp_path: Path) -> None:
    for file in ct2.iterdir():
        if file.name != "tokenizer.json":
            shutil.copy(file, tmp_path / file.name)
    with pytest.raises(ModelNotFound, match=r"tokenizer\.json is missing"):
        load(str(tmp_path), "cpu", "auto", cpu_threads=1)


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        ("CUDA failed with error out of memory", DeviceOutOfMemory),
        ("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED", DeviceOutOfMemory),
        ("CUDA failed with error an illegal memory access was encountered", DeviceFailed),
        ("cuDNN failed with status CUDNN_STATUS_EXECUTION_FAILED", DeviceFailed),
    ],
)
def test_what_ctranslate2_says_of_its_device(message: str, ours: type[Exception]) -> None:
    original = RuntimeError(message)
    with pytest.raises(ours, match="cuda:0") as caught, device_errors("cuda:0"):
        raise original
    assert caught.value.__cause__ is original


def test_other_errors_are_not_the_devices() -> None:
    with pytest.raises(RuntimeError, match="no such thing"), device_errors("cpu"):
        raise RuntimeError("no such thing")
    with pytest.raises(DeviceOutOfMemory), device_errors("cpu"):
        raise MemoryError


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin processes")
def test_a_pinned_worker_has_the_cores_it_is_pinned_to() -> None:
    allowed = os.sched_getaffinity(0)
    assert usable_cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
