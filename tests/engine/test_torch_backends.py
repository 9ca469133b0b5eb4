"""Both torch backends on the fixture model, against the texts and against openai-whisper's own decoding."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import torch
import whisper
from whisper.decoding import DecodingOptions, DecodingResult, DecodingTask
from whisper.timing import find_alignment
from whisper.tokenizer import get_tokenizer

from stt_engine.backends import openai_whisper, transformers
from stt_engine.backends.base import Backend
from stt_engine.backends.openai_weights import read_weights
from stt_engine.backends.torch_backend import TorchBackend
from stt_engine.backends.torch_decoder import DecoderState
from stt_engine.mel import log_mel
from stt_engine.models import read_layout
from stt_engine.types import Samples, seconds_from_samples
from stt_engine.windows import Encoded, WindowRequest, WindowTokens

LOADERS = {"transformers": transformers.load, "openai-whisper": openai_whisper.load}
Reference = dict[str, Any]


@pytest.fixture(scope="module", params=list(LOADERS))
def backend(request: pytest.FixtureRequest, fixture_model: Path) -> TorchBackend:
    loaded = LOADERS[request.param](str(fixture_model), "cpu", "auto", cpu_threads=1)
    assert isinstance(loaded, TorchBackend)
    assert loaded.name == request.param
    return loaded


@pytest.fixture(scope="module")
def reference_model(fixture_model: Path) -> Any:
    """openai-whisper's own model, for its own DecodingTask."""
    model = openai_whisper.build(read_weights(read_layout(fixture_model)), "fixture")
    heads = torch.zeros(model.dims.n_text_layer, model.dims.n_text_head, dtype=torch.bool)
    heads[1] = True  # alignment_heads of the fixture's generation_config.json: both heads of the second layer
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return model


@pytest.fixture(scope="module")
def references(samples: Path) -> dict[str, Reference]:
    lines = (samples / "reference.jsonl").read_text(encoding="utf-8").splitlines()
    return {reference["file"]: reference for reference in map(json.loads, lines)}


@pytest.fixture(scope="module")
def sentences(references: dict[str, Reference]) -> list[Reference]:
    return [reference for reference in references.values() if reference["kind"] == "sentence"]


@pytest.fixture(scope="module")
def audio(samples: Path, references: dict[str, Reference]) -> dict[str, Samples]:
    """Every sample, the long ones cut to their first 30 s."""
    return {name: soundfile.read(samples / name, dtype="float32", frames=480_000)[0] for name in references}


@pytest.fixture(scope="module")
def heard(
    backend: Backend, sentences: list[Reference], audio: dict[str, Samples]
) -> tuple[Encoded, list[WindowRequest], list[WindowTokens]]:
    """English and Korean sentences in one device batch."""
    encoded = backend.encode([audio[s["file"]] for s in sentences])
    requests = [request(s["language"]) for s in sentences]
    return encoded, requests, backend.decode(encoded, requests)


def request(language: str = "en", **options: Any) -> WindowRequest:
    return WindowRequest(**{"language": language, "task": "transcribe", "timestamps": True, **options})


def text_tokens(backend: Backend, output: WindowTokens) -> tuple[int, ...]:
    return tuple(token for token in output.tokens if token < backend.tokens.eot)


def test_sentences_are_right(backend: Backend, sentences: list[Reference], heard: Any) -> None:
    texts = [backend.tokens.decode(output.tokens).strip() for output in heard[2]]
    pairs = {code: [(s["text"], t) for s, t in zip(sentences, texts, strict=True) if s["language"] == code]
             for code in ("en", "ko")}  # fmt: skip
    assert len(pairs["en"]) == len(pairs["ko"]) == 15
    assert jiwer.wer([said for said, _ in pairs["en"]], [text for _, text in pairs["en"]]) <= 0.03
    assert jiwer.cer([said for said, _ in pairs["ko"]], [text for _, text in pairs["ko"]]) <= 0.04


def test_windows_of_one_batch_do_not_touch_each_other(backend: Backend, audio: dict[str, Samples]) -> None:
    """Languages, tasks, prompt lengths, time stamps and lengths of the text all differ; so rows leave at all times."""
    long_prompt = backend.tokens.encode(" how can i help you") * 20
    windows = {
        "en_000.flac": request(previous_tokens=backend.tokens.encode(" order number")),
        "ko_000.flac": request("ko"),
        "en_long0.flac": request(timestamps=False),
        "ko_long0.flac": request("ko", previous_tokens=backend.tokens.encode(" 안녕하세요")),
        "en_004.flac": request(previous_tokens=long_prompt, timestamps=False),
        "ko_003.flac": request("ko", task="translate"),
        "silence.flac": request(),
        "en_005.flac": request("ko"),
    }
    encoded = backend.encode([audio[name] for name in windows])
    together = backend.decode(encoded, list(windows.values()))
    assert len({len(output.tokens) for output in together}) > 3
    for name, asked, output in zip(windows, windows.values(), together, strict=True):
        (alone,) = backend.decode(backend.encode([audio[name]]), [asked])
        assert alone.tokens == output.tokens, name
        assert alone.avg_logprob == pytest.approx(output.avg_logprob, abs=1e-3)
        assert alone.no_speech_prob == pytest.approx(output.no_speech_prob, abs=1e-3)


@pytest.fixture(scope="module")
def decoded_by_openai(reference_model: Any, audio: dict[str, Samples]) -> Callable[[str, str, bool], DecodingResult]:
    """What the library's own DecodingTask makes of a sample, once for both backends."""

    @functools.cache
    def decoded(name: str, language: str, timestamps: bool) -> DecodingResult:
        options = DecodingOptions(language=language, without_timestamps=not timestamps, fp16=False)
        (result,) = DecodingTask(reference_model, options).run(torch.from_numpy(log_mel([audio[name]], 80)))
        return result

    return decoded


@pytest.mark.parametrize("timestamps", [True, False])
def test_decodes_as_openai_whisper_does(
    backend: Backend,
    decoded_by_openai: Callable[[str, str, bool], DecodingResult],
    references: dict[str, Reference],
    audio: dict[str, Samples],
    timestamps: bool,
) -> None:
    """Text, time stamps, mean log probability and no-speech probability of the library's own DecodingTask."""
    names = [name for name in references if references[name]["kind"] != "sentence"]
    names += ["en_000.flac", "en_001.flac", "en_013.flac", "ko_000.flac", "ko_007.flac", "ko_014.flac"]
    languages = [references[name]["language"] or "en" for name in names]
    encoded = backend.encode([audio[name] for name in names])
    ours = backend.decode(encoded, [request(code, timestamps=timestamps) for code in languages])
    for name, code, output in zip(names, languages, ours, strict=True):
        theirs = decoded_by_openai(name, code, timestamps)
        assert output.tokens == tuple(theirs.tokens), name
        assert output.avg_logprob == pytest.approx(theirs.avg_logprob, abs=0.002), name
        assert output.no_speech_prob == pytest.approx(theirs.no_speech_prob, abs=0.002), name


def test_previous_tokens_decode_as_openais_prompt(
    backend: Backend, reference_model: Any, audio: dict[str, Samples]
) -> None:
    prompt = backend.tokens.encode(" the security team in tokyo")
    (ours,) = backend.decode(backend.encode([audio["en_008.flac"]]), [request(previous_tokens=prompt)])
    options = DecodingOptions(language="en", prompt=list(prompt), fp16=False)
    mel = torch.from_numpy(log_mel([audio["en_008.flac"]], 80))
    (theirs,) = DecodingTask(reference_model, options).run(mel)
    assert ours.tokens == tuple(theirs.tokens)
    assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=0.002)
    assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob, abs=0.002)


def test_logits_are_the_librarys_own(backend: TorchBackend, reference_model: Any, audio: dict[str, Samples]) -> None:
    """Whole texts, token by token, and padded on the left: one forward pass, three ways into it."""
    encoded = backend.encode([audio["en_000.flac"], audio["ko_000.flac"]])
    table, modules = backend.tokens, backend._modules
    texts = [(*table.prompt(request("en")), *table.encode(" how can i help you next week")),
             (*table.prompt(request("ko")), *table.encode(" 네"))]  # fmt: skip
    with torch.inference_mode():
        expected = [
            reference_model.logits(torch.tensor([text]), encoded.states[window : window + 1])[0]
            for window, text in enumerate(texts)
        ]
        state = DecoderState(modules, encoded.states)
        padded = modules.logits(state.prefill([text[:-1] for text in texts], pad=table.eot, room=1))
        last = modules.logits(state.step(torch.tensor([text[-1] for text in texts])))
    for window, text in enumerate(texts):
        own = torch.cat([padded[window, -(len(text) - 1) :], last[window : window + 1]])
        assert torch.allclose(own, expected[window], atol=2e-3)


def test_languages_are_those_spoken(backend: Backend, sentences: list[Reference], heard: Any) -> None:
    named = backend.detect_languages(heard[0])
    assert [max(shares, key=lambda code: shares[code]) for shares in named] == [s["language"] for s in sentences]
    assert all(sum(shares.values()) == pytest.approx(1.0, abs=1e-4) for shares in named)
    assert all(len(shares) == 99 for shares in named)


def test_language_shares_are_openais(backend: Backend, reference_model: Any, heard: Any) -> None:
    _, theirs = reference_model.detect_language(
        heard[0].states, get_tokenizer(True, num_languages=99, language="en", task="transcribe")
    )
    for ours, expected in zip(backend.detect_languages(heard[0]), theirs, strict=True):
        assert ours == pytest.approx(expected, abs=1e-4)


def test_times_frame_the_speech(backend: Backend, sentences: list[Reference], heard: Any) -> None:
    begin = backend.tokens.timestamp_begin
    for sentence, output in zip(sentences, heard[2], strict=True):
        stamps_s = [(token - begin) * 0.02 for token in output.tokens if token >= begin]
        assert output.tokens[0] >= begin
        assert len(stamps_s) % 2 == 0
        assert 0.0 <= stamps_s[0] <= 1.0
        assert stamps_s == sorted(stamps_s)
        assert sentence["duration_s"] * 0.5 <= stamps_s[-1] <= sentence["duration_s"] + 0.1


@pytest.mark.parametrize("name", ["silence.flac", "noise.flac"])
def test_where_nobody_speaks_there_is_no_text(backend: Backend, audio: dict[str, Samples], name: str) -> None:
    (output,) = backend.decode(backend.encode([audio[name]]), [request()])
    assert output.no_speech_prob > 0.6 or not text_tokens(backend, output)


def test_words_are_in_order_and_where_openai_finds_them(
    backend: Backend, reference_model: Any, sentences: list[Reference], audio: dict[str, Samples], heard: Any
) -> None:
    encoded, requests, outputs = heard
    aligned = backend.align(encoded, requests, [text_tokens(backend, output) for output in outputs])
    mel = torch.from_numpy(log_mel([audio[s["file"]] for s in sentences], 80))
    starts: list[float] = []
    for place, (sentence, words) in enumerate(zip(sentences, aligned, strict=True)):
        assert "".join(word.text for word in words) == backend.tokens.decode(outputs[place].tokens)
        assert all(before.end_s <= after.start_s for before, after in pairwise(words))
        assert all(0.0 <= word.start_s <= word.end_s <= sentence["duration_s"] + 0.01 for word in words)
        assert all(type(word.start_s) is float and 0.0 <= word.probability <= 1.0 for word in words)
        tokenizer = get_tokenizer(True, num_languages=99, language=sentence["language"], task="transcribe")
        theirs = find_alignment(
            reference_model,
            tokenizer,
            list(text_tokens(backend, outputs[place])),
            mel[place],
            len(audio[sentence["file"]]) // 160,
        )
        assert [word.text for word in words] == [timing.word for timing in theirs]
        assert [w.probability for w in words] == pytest.approx([t.probability for t in theirs], abs=5e-3)
        starts += [abs(word.start_s - timing.start) for word, timing in zip(words, theirs, strict=True)]
    assert np.median(starts) == 0.0
    assert np.mean(np.array(starts) <= 0.021) >= 0.95  # words after a pause are cut by words.py, hence not all


def test_words_of_no_text_are_none(backend: Backend, audio: dict[str, Samples]) -> None:
    encoded = backend.encode([audio["silence.flac"], audio["en_000.flac"]])
    text = backend.tokens.encode(" how can i help you next week")
    nothing, something = backend.align(encoded, [request(), request()], [(), text])
    assert nothing == ()
    assert len(something) == 7


def test_a_drawn_text_is_the_same_for_a_seed(backend: Backend, audio: dict[str, Samples]) -> None:
    encoded = backend.encode([audio["en_long0.flac"], audio["ko_long0.flac"], audio["en_003.flac"]])
    requests = [request(), request("ko"), request()]
    first, again, other = (backend.decode(encoded, requests, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    begin = backend.tokens.timestamp_begin
    for output in (*first, *other):
        stamps = [token for token in output.tokens if token >= begin]
        assert stamps == sorted(stamps)
        assert not set(output.tokens) & set(backend.tokens.suppressed)


def test_the_best_of_five_is_near_the_greedy_text(backend: Backend, sentences: list[Reference], heard: Any) -> None:
    encoded, requests, greedy = heard
    drawn = backend.decode(encoded, requests, temperature=0.2, seed=5)
    same = [d.tokens == g.tokens for d, g in zip(drawn, greedy, strict=True)]
    assert np.mean(same) >= 0.8
    for left, right in zip(drawn, greedy, strict=True):
        if left.tokens == right.tokens:
            assert left.avg_logprob == pytest.approx(right.avg_logprob, abs=1e-3)


def test_a_text_without_end_stops_at_half_the_positions(backend: TorchBackend, audio: dict[str, Samples]) -> None:
    """Beside a prompt that leaves it less room; neither may run past the model's last position."""
    endless = dataclasses.replace(backend.tokens, suppressed=(*backend.tokens.suppressed, backend.tokens.eot))
    encoded = backend.encode([audio["en_000.flac"]] * 2)
    prompts = [endless.prompt(request(previous_tokens=(400,) * 400)), endless.prompt(request())]
    assert [len(prompt) for prompt in prompts] == [227, 3]
    from stt_engine.backends.torch_decoding import decode_windows

    long, short = decode_windows(backend._modules, endless, encoded.states, prompts, [False, False])
    assert (len(long.tokens), len(short.tokens)) == (222, 224)


def test_some_windows_without_encoding_again(backend: Backend, heard: Any) -> None:
    encoded, requests, outputs = heard
    places = [17, 3, 3, 0]
    some = backend.select(encoded, places)
    assert some.n_windows == 4
    assert some.n_samples == tuple(encoded.n_samples[place] for place in places)
    again = backend.decode(some, [requests[place] for place in places])
    assert [output.tokens for output in again] == [outputs[place].tokens for place in places]


@pytest.mark.parametrize("compute_type", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", list(LOADERS))
def test_half_precision_hears_the_same(
    name: str, compute_type: str, fixture_model: Path, sentences: list[Reference], audio: dict[str, Samples]
) -> None:
    half = LOADERS[name](str(fixture_model), "cpu", compute_type, cpu_threads=1)
    assert half.compute_type == compute_type
    some = [sentences[0], sentences[8], sentences[14], sentences[15]]
    outputs = half.decode(half.encode([audio[s["file"]] for s in some]), [request(s["language"]) for s in some])
    texts = [half.tokens.decode(output.tokens).strip() for output in outputs]
    assert jiwer.cer([s["text"] for s in some], texts) <= 0.05
    words = half.align(half.encode([audio[some[0]["file"]]]), [request()], [text_tokens(half, outputs[0])])
    assert len(words[0]) == len(some[0]["text"].split())


def test_shortest_and_longest_windows(backend: Backend) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 480_000).astype(np.float32)
    encoded = backend.encode([noise[:1], noise])
    outputs = backend.decode(encoded, [request(), request()])
    words = backend.align(encoded, [request(), request()], [backend.tokens.encode(" hello there")] * 2)
    assert len(outputs) == 2
    assert all(word.end_s <= seconds_from_samples(1) for word in words[0])
    assert all(word.end_s <= 30.0 for word in words[1])


def test_closed_means_closed(fixture_model: Path) -> None:
    for load in LOADERS.values():
        loaded = load(str(fixture_model), "cpu", "auto", cpu_threads=1)
        loaded.close()
        assert not [value for value in vars(loaded).values() if isinstance(value, torch.nn.Module)]


def test_no_ffmpeg_is_needed(monkeypatch: pytest.MonkeyPatch, fixture_model: Path, audio: dict[str, Samples]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(whisper.audio, "load_audio", None)
    loaded = openai_whisper.load(str(fixture_model), "cpu", "auto", cpu_threads=1)
    (output,) = loaded.decode(loaded.encode([audio["en_000.flac"]]), [request()])
    assert loaded.tokens.decode(output.tokens).strip() == "how can i help you next week"
