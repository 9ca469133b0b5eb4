"""Hugging Face format turned into CTranslate2's, once per set of weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from stt_engine.errors import ModelFormatError
from stt_engine.models.cache import cache_root, publish
from stt_engine.models.fetching import Progress, Report
from stt_engine.models.fingerprints import fingerprint
from stt_engine.models.layout import CT2_FOLDER, SAFETENSORS, Form, ModelLayout, read_layout
from stt_engine.models.names import can_convert


def ct2_dir(path: str | Path, *, cache_dir: str | Path | None = None, report: Report | None = None) -> Path:
    """The CTranslate2 form of the model at `path`, for faster-whisper.

    The directory itself, its `ct2/` folder, or a conversion in the cache that is made when first asked for
    (a minute for large-v3; other processes wait). Your own directories are not written to; `convert` does that.

    Raises ModelFormatError: the model has no form that converts, or torch and transformers are not installed.
    """
    layout = read_layout(Path(path))
    if layout.ct2 is not None:
        return layout.ct2
    _check_convertible(layout)
    weights = fingerprint(path, cache_dir=cache_dir)
    return publish(cache_root(cache_dir) / "ct2" / weights, lambda partial: _convert(layout, partial, report))


def convert(directory: str | Path, *, report: Report | None = None) -> Path:
    """Puts the CTranslate2 form beside the Hugging Face one, in `directory/ct2`, for machines that cannot convert.

    Raises as `ct2_dir`; UsageError where the directory cannot be written.
    """
    layout = read_layout(Path(directory).expanduser().absolute())
    if layout.ct2 is not None:
        return layout.ct2
    _check_convertible(layout)
    return publish(layout.path / CT2_FOLDER, lambda partial: _convert(layout, partial, report))


def _check_convertible(layout: ModelLayout) -> None:
    if Form.HUGGING_FACE not in layout.forms:
        raise ModelFormatError(
            f"{layout.path} holds OpenAI's form alone, which serves openai-whisper and not faster-whisper. Choose "
            "--backend openai-whisper, or name the model's directory in Hugging Face format."
        )
    if not can_convert():
        raise ModelFormatError(
            f"{layout.path} is in Hugging Face format, and faster-whisper needs it converted, which takes torch and "
            "transformers: pip install 'nightscribe[transformers]'. Or convert it where they are (nightscribe models "
            f"convert {layout.path}) and copy its {CT2_FOLDER}/ folder here."
        )


def _convert(layout: ModelLayout, folder: Path, report: Report | None) -> None:
    if report:
        report(Progress(f"converting {layout.path.name} for faster-whisper"))
    # A process of its own: torch and the weights, some GB for the large ones, are gone when it ends.
    command = [sys.executable, "-m", "stt_engine.models.conversion", str(layout.path), str(folder)]
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **quiet})
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelFormatError(f"the model {layout.path} could not be converted for faster-whisper: {last}")
    read_layout(folder)


def _convert_here(source: Path, folder: Path) -> None:
    """What the process runs. The weights keep their precision; what CTranslate2 leaves out is put beside them."""
    from ctranslate2.converters import TransformersConverter

    half = _holds_half_floats(source)
    TransformersConverter(str(source), load_as_float16=half).convert(
        str(folder), quantization="float16" if half else "float32", force=True
    )
    # Without tokenizer.json faster-whisper asks the Hub; without the other it takes 80 mel bands for granted,
    # where large-v3 has 128.
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    bands = json.loads((source / "config.json").read_bytes()).get("num_mel_bins", 80)
    features = {"feature_size": bands, "hop_length": 160, "n_fft": 400, "chunk_length": 30, "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(features))


def _holds_half_floats(source: Path) -> bool:
    """Whether the weights are 16-bit, by the header of safetensors, else by what config.json says."""
    weights = source / SAFETENSORS
    if weights.exists():
        with weights.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return any(entry["dtype"] in {"F16", "BF16"} for name, entry in header.items() if name != "__metadata__")
    config = json.loads((source / "config.json").read_bytes())
    return str(config.get("dtype") or config.get("torch_dtype")) in {"float16", "bfloat16"}


if __name__ == "__main__":
    _convert_here(Path(sys.argv[1]), Path(sys.argv[2]))
