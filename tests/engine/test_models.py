"""From a name or a directory to a complete model: layouts, conversion, faults."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stt_engine import models
from stt_engine.errors import ModelFormatError, ModelNotFound, UsageError
from stt_engine.models import Form
from stt_engine.models.names import KNOWN, candidate_repos
from tests.engine.small_hub import python_process


def test_built_in_model_is_complete_in_both_forms(fixture_model: Path) -> None:
    layout = models.read_layout(fixture_model)
    assert layout.forms == {Form.HUGGING_FACE, Form.CTRANSLATE2}
    assert models.ct2_dir(fixture_model) == fixture_model / "ct2"
    assert len(models.fingerprint(fixture_model)) == 16


def test_processes_that_unpack_at_once_get_the_same_whole_directory(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = list(
            pool.map(
                lambda _: python_process("print(models.fingerprint(models.resolve('fixture')))", tmp_path), range(4)
            )
        )
    assert [run.stderr for run in runs if run.returncode] == []
    assert len({run.stdout for run in runs}) == 1
    assert len([path for path in (tmp_path / "fixture").iterdir() if path.is_dir()]) == 1, "nothing half done is left"


@pytest.mark.parametrize(
    ("name", "meant"), [("larg-v3", "large-v3"), ("Turbo", "turbo"), ("whisper-tiny", "tiny"), ("./models/base", None)]
)
def test_unknown_name_says_what_may_have_been_meant(name: str, meant: str | None) -> None:
    with pytest.raises(ModelNotFound) as caught:
        models.resolve(name)
    assert repr(name) in str(caught.value)
    assert "nightscribe models fetch" in str(caught.value)
    assert meant is None or f"Did you mean {meant}" in str(caught.value)


@pytest.mark.parametrize(
    "missing", [["model.safetensors"], ["tokenizer.json"], ["config.json", "model.safetensors"], ["config.json"]]
)
def test_incomplete_directory_names_what_is_missing_and_how_to_get_it(spoilt_model: Path, missing: list[str]) -> None:
    for name in missing:
        (spoilt_model / name).unlink()
    with pytest.raises(ModelFormatError) as caught:
        models.resolve(spoilt_model)
    assert f"missing: {', '.join(missing)}." in str(caught.value)
    assert f"nightscribe models fetch NAME {spoilt_model}" in str(caught.value)


def test_incomplete_shards_and_ct2_folder(spoilt_model: Path, fixture_model: Path) -> None:
    (spoilt_model / "model.safetensors").unlink()
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (spoilt_model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelFormatError, match=r"missing: model-00001-of-00002\.safetensors, model-00002"):
        models.resolve(spoilt_model)
    ct2 = spoilt_model.parent / "ct2-only"
    shutil.copytree(fixture_model / "ct2", ct2)
    assert models.read_layout(ct2).forms == {Form.CTRANSLATE2}
    (ct2 / "tokenizer.json").unlink()
    with pytest.raises(ModelFormatError, match=r"missing: tokenizer\.json"):
        models.resolve(ct2)


def test_damaged_weights_are_told_from_missing_ones(spoilt_model: Path) -> None:
    weights = spoilt_model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFormatError, match="cut short"):
        models.resolve(spoilt_model)
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelFormatError, match="git lfs pull"):
        models.resolve(spoilt_model)
    weights.write_bytes(b"")
    with pytest.raises(ModelFormatError, match=r"model\.safetensors"):
        models.resolve(spoilt_model)


def test_other_things_than_a_whisper_are_refused(spoilt_model: Path, tmp_path: Path) -> None:
    config = json.loads((spoilt_model / "config.json").read_text())
    (spoilt_model / "config.json").write_text(json.dumps(config | {"model_type": "wav2vec2"}))
    with pytest.raises(ModelFormatError, match="'wav2vec2'"):
        models.resolve(spoilt_model)
    (spoilt_model / "config.json").write_text("{")
    with pytest.raises(ModelFormatError, match=r"config\.json is damaged"):
        models.resolve(spoilt_model)
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(ModelFormatError, match=r"notes\.txt is a file"):
        models.resolve(text)
    with pytest.raises(ModelNotFound, match="absent"):
        models.resolve(tmp_path / "absent")


def test_openai_checkpoint_serves_its_own_backend_alone(tmp_path: Path) -> None:
    checkpoint = tmp_path / "tiny.pt"
    checkpoint.write_bytes(b"PK")
    assert models.resolve(str(checkpoint)) == checkpoint
    assert models.read_layout(tmp_path).forms == {Form.OPENAI}
    with pytest.raises(ModelFormatError, match="--backend openai-whisper"):
        models.ct2_dir(checkpoint)


def test_ct2_form_in_the_same_folder(spoilt_model: Path, fixture_model: Path) -> None:
    for name in ("model.bin", "vocabulary.json"):
        shutil.copy(fixture_model / "ct2" / name, spoilt_model)
    assert models.ct2_dir(spoilt_model) == spoilt_model
    assert models.read_layout(spoilt_model).forms == {Form.HUGGING_FACE, Form.CTRANSLATE2}


def test_conversion_happens_once_and_hears_what_the_shipped_form_hears(
    plain_model: Path, fixture_model: Path, samples: Path, tmp_path: Path
) -> None:
    from faster_whisper import WhisperModel

    steps: list[models.Progress] = []
    converted = models.ct2_dir(plain_model, cache_dir=tmp_path, report=steps.append)
    assert converted.is_relative_to(tmp_path)
    assert not (plain_model / "ct2").exists(), "the user's directory is left alone"
    assert models.ct2_dir(plain_model, cache_dir=tmp_path, report=steps.append) == converted
    assert [step.doing for step in steps] == ["converting plain for faster-whisper"]
    shipped = fixture_model / "ct2"
    assert (converted / "model.bin").stat().st_size == (shipped / "model.bin").stat().st_size

    def heard(folder: Path) -> list[str]:
        model = WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=1)
        files = [samples / name for name in ("en_000.flac", "ko_000.flac")]
        return [
            "".join(segment.text for segment in model.transcribe(str(file), language=file.name[:2])[0])
            for file in files
        ]

    assert heard(converted) == heard(shipped)
    assert heard(converted)[0].strip() == "how can i help you next week"


def test_processes_that_convert_at_once_do_it_once(plain_model: Path, tmp_path: Path) -> None:
    code = f"seen = []\nprint(models.ct2_dir({str(plain_model)!r}, report=seen.append))\nprint(len(seen))"
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: python_process(code, tmp_path), range(2)))
    assert [run.stderr for run in runs if run.returncode] == []
    outputs = [run.stdout.split() for run in runs]
    assert outputs[0][0] == outputs[1][0]
    assert sorted(count for _, count in outputs) == ["0", "1"]


def test_convert_puts_the_form_beside_the_weights(spoilt_model: Path) -> None:
    assert models.convert(spoilt_model) == spoilt_model / "ct2"
    assert models.read_layout(spoilt_model).forms == {Form.HUGGING_FACE, Form.CTRANSLATE2}
    features = json.loads((spoilt_model / "ct2" / "preprocessor_config.json").read_text())
    assert features["feature_size"] == 80


def test_without_torch_the_error_names_the_extra_and_names_prefer_the_converted_form(
    plain_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stt_engine.models import conversion, names

    monkeypatch.setattr(conversion, "can_convert", lambda: False)
    monkeypatch.setattr(names, "can_convert", lambda: False)
    with pytest.raises(ModelFormatError, match=r"nightscribe\[transformers\]"):
        models.ct2_dir(plain_model, cache_dir=tmp_path)
    assert candidate_repos("tiny")[0] == "Systran/faster-whisper-tiny"
    assert candidate_repos("turbo") == ("mobiuslabsgmbh/faster-whisper-large-v3-turbo", "openai/whisper-large-v3-turbo")


def test_known_names_are_those_of_the_two_projects() -> None:
    from faster_whisper.utils import _MODELS

    for name, known in KNOWN.items():
        assert known.ct2_repo == _MODELS[name]
    assert set(_MODELS) - set(KNOWN) == {"large", "turbo"}
    assert candidate_repos("large") == candidate_repos("large-v3")
    assert candidate_repos("large-v3")[0] == "openai/whisper-large-v3"


def test_fingerprint_follows_the_weights_and_nothing_else(
    spoilt_model: Path, plain_model: Path, tmp_path: Path
) -> None:
    before = models.fingerprint(plain_model, cache_dir=tmp_path)
    (spoilt_model / "generation_config.json").write_text("{}")
    assert models.fingerprint(spoilt_model, cache_dir=tmp_path) == before
    assert models.fingerprint(spoilt_model, cache_dir=tmp_path) == before, "remembered"
    weights = bytearray((spoilt_model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (spoilt_model / "model.safetensors").write_bytes(weights)
    assert models.fingerprint(spoilt_model, cache_dir=tmp_path) != before


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(UsageError, match="NIGHTSCRIBE_CACHE_DIR"):
        models.resolve("fixture", cache_dir=in_the_way)


def test_installed_lists_the_built_in_and_the_fetched(plain_model: Path, tmp_path: Path) -> None:
    assert [model.name for model in models.installed(cache_dir=tmp_path)] == ["fixture"]
    shutil.copytree(plain_model, tmp_path / "models" / "openai--whisper-tiny")
    shutil.copytree(plain_model, tmp_path / "models" / "some-org--telephony")
    listed = models.installed(cache_dir=tmp_path)
    assert [(model.name, model.origin) for model in listed] == [
        ("fixture", "built in"),
        ("some-org/telephony", "fetched"),
        ("tiny", "fetched"),
    ]
    assert listed[2].forms == {Form.HUGGING_FACE}
    assert listed[2].size_bytes > 10_000_000
