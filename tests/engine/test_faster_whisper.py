"""The CTranslate2 backend on the fixture model; every figure is of the 30 sentences it was never trained on."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import ctranslate2
import jiwer
import numpy as np
import pytest
import soundfile

from stt_engine.backends.faster_whisper import FasterWhisperBackend, load
from stt_engine.errors import (
    UnknownLanguage,
)
from stt_engine.types import Samples, Word, seconds_from_samples
from stt_engine.windows import Encoded, WindowRequest, WindowTokens
from stt_engine.words import fit_to_segment

Reference = dict[str, Any]


@pytest.fixture(scope="module")
def ct2(fixture_model: Path) -> Path:
    return fixture_model / "ct2"


@pytest.fixture(scope="module")
def backend(ct2: Path) -> FasterWhisperBackend:
    # One thread: two of them wait for each other at every step once the cores are shared with other tests.
    return load(str(ct2), "cpu", "float32", cpu_threads=1)


@pytest.fixture(scope="module")
def references(samples: Path) -> list[Reference]:
    return [json.loads(line) for line in (samples / "reference.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def sentences(references: list[Reference]) -> list[Reference]:
    return [reference for reference in references if reference["kind"] == "sentence"]


@pytest.fixture(scope="module")
def audio(samples: Path, references: list[Reference]) -> dict[str, Samples]:
    decoded: dict[str, Samples] = {}
    for reference in references:
        decoded[reference["file"]], rate_hz = soundfile.read(samples / reference["file"], dtype="float32")
        assert rate_hz == 16_000
    return decoded


@pytest.fixture(scope="module")
def all_sentences(
    backend: FasterWhisperBackend, sentences: list[Reference], audio: dict[str, Samples]
) -> tuple[Encoded, list[WindowRequest], list[WindowTokens]]:
    """English and Korean mixed in one device batch."""
    encoded = backend.encode([audio[s["file"]] for s in sentences])
    requests = [request(s["language"]) for s in sentences]
    return encoded, requests, backend.decode(encoded, requests)


def request(language: str = "en", **options: Any) -> WindowRequest:
    return WindowRequest(**{"language": language, "task": "transcribe", "timestamps": True, **options})


def texts(backend: FasterWhisperBackend, outputs: list[WindowTokens]) -> list[str]:
    return [backend.tokens.decode(output.tokens).strip() for output in outputs]


def text_tokens(backend: FasterWhisperBackend, output: WindowTokens) -> list[int]:
    return [token for token in output.tokens if token < backend.tokens.eot]


def test_sentences_are_right_in_a_batch_of_two_languages(
    backend: FasterWhisperBackend, sentences: list[Reference], all_sentences: Any
) -> None:
    heard = texts(backend, all_sentences[2])
    english = [(s["text"], h) for s, h in zip(sentences, heard, strict=True) if s["language"] == "en"]
    korean = [(s["text"], h) for s, h in zip(sentences, heard, strict=True) if s["language"] == "ko"]
    assert len(english) == len(korean) == 15
    assert jiwer.wer([t for t, _ in english], [h for _, h in english]) <= 0.03
    assert jiwer.cer([t for t, _ in korean], [h for _, h in korean]) <= 0.04


def test_a_batch_says_what_its_windows_say_alone(
    backend: FasterWhisperBackend, sentences: list[Reference], audio: dict[str, Samples], all_sentences: Any
) -> None:
    _, requests, outputs = all_sentences
    for place in (0, 7, 14, 15, 22, 29):
        encoded = backend.encode([audio[sentences[place]["file"]]])
        (alone,) = backend.decode(encoded, [requests[place]])
        assert alone.tokens == outputs[place].tokens
        assert alone.avg_logprob == pytest.approx(outputs[place].avg_logprob, abs=1e-4)
        assert alone.no_speech_prob == pytest.approx(outputs[place].no_speech_prob, abs=1e-4)


def test_times_frame_the_text(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    begin = backend.tokens.timestamp_begin
    for output in all_sentences[2]:
        stamps = [token - begin for token in output.tokens if token >= begin]
        assert output.tokens[0] >= begin
        assert stamps[0] <= 50
        assert stamps == sorted(stamps)
        assert len(stamps) % 2 == 0


def test_languages_are_detected(backend: FasterWhisperBackend, sentences: list[Reference], all_sentences: Any) -> None:
    found = backend.detect_languages(all_sentences[0])
    assert [max(each, key=each.__getitem__) for each in found] == [s["language"] for s in sentences]
    for each in found:
        assert sum(each.values()) == pytest.approx(1.0, abs=1e-3)
        assert set(each) <= set(backend.tokens.language_ids)


def test_sentences_score_high_and_silence_low(
    backend: FasterWhisperBackend, audio: dict[str, Samples], all_sentences: Any
) -> None:
    assert all(-0.5 < output.avg_logprob <= 0.0 for output in all_sentences[2])
    assert all(output.no_speech_prob < 0.1 for output in all_sentences[2])
    quiet = backend.encode([audio["silence.flac"], audio["noise.flac"], np.zeros(1, np.float32)])
    outputs = backend.decode(quiet, [request()] * 3)
    assert texts(backend, outputs) == ["", "", ""]
    assert all(output.no_speech_prob > 0.6 for output in outputs)


def test_avg_logprob_is_the_sum_over_tokens_and_end(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    encoded, requests, outputs = all_sentences
    (raw,) = backend._whisper.generate(
        backend.select(encoded, [3]).states[0].states.storage,
        [list(backend.tokens.prompt(requests[3]))],
        beam_size=1,
        length_penalty=0,  # the plain sum
        return_scores=True,
        suppress_tokens=list(backend.tokens.suppressed),
    )
    assert outputs[3].avg_logprob == pytest.approx(raw.scores[0] / (len(raw.sequences_ids[0]) + 1), abs=1e-5)


def test_select_takes_windows_in_any_order(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    encoded, requests, outputs = all_sentences
    places = [17, 0, 5, 17]
    chosen = backend.select(encoded, places)
    assert chosen.n_windows == 4
    assert chosen.n_samples == tuple(encoded.n_samples[place] for place in places)
    again = backend.decode(chosen, [requests[place] for place in places])
    assert [output.tokens for output in again] == [outputs[place].tokens for place in places]


def test_prompts_of_every_shape_in_one_batch(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    encoded, requests, _ = all_sentences
    places = [0, 15, 1, 16, 2]
    said_before = backend.tokens.encode(" the blue charger")
    mixed = [
        requests[0],
        request("ko", timestamps=False),
        request("en", previous_tokens=said_before),
        request("ko", previous_tokens=said_before[:1]),
        request("en", task="translate", timestamps=False, previous_tokens=said_before),
    ]
    together = backend.decode(backend.select(encoded, places), mixed)
    for place, each, output in zip(places, mixed, together, strict=True):
        (alone,) = backend.decode(backend.select(encoded, [place]), [each])
        assert alone.tokens == output.tokens
    assert together[0].tokens != together[1].tokens


def test_beam_search_keeps_the_bounds(
    backend: FasterWhisperBackend, sentences: list[Reference], all_sentences: Any
) -> None:
    encoded, requests, _ = all_sentences
    english = [place for place, s in enumerate(sentences) if s["language"] == "en"]
    outputs = backend.decode(backend.select(encoded, english), [requests[p] for p in english], beam_size=3)
    assert jiwer.wer([sentences[p]["text"] for p in english], texts(backend, outputs)) <= 0.03


def test_sampling_draws_others_and_keeps_the_scale_of_scores(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    encoded, requests, outputs = all_sentences
    places = [0, 1, 15, 16]
    chosen = backend.select(encoded, places)
    asked = [requests[place] for place in places]
    cool = backend.decode(chosen, asked, temperature=0.01)
    # Scored at the model's own distribution: nearly greedy sampling scores as greedy does, not nearly 0.
    for place, output in zip(places, cool, strict=True):
        assert output.tokens == outputs[place].tokens
        assert output.avg_logprob == pytest.approx(outputs[place].avg_logprob, abs=1e-4)
    hot = backend.decode(chosen, asked, temperature=4.0)
    assert [output.tokens for output in hot] != [outputs[place].tokens for place in places]
    assert all(output.avg_logprob < -1.0 for output in hot)


def test_sampling_repeats_after_the_same_load_and_seed(ct2: Path, audio: dict[str, Samples]) -> None:
    drawn = []
    for _ in range(2):
        loaded = load(str(ct2), "cpu", "float32", cpu_threads=1)
        encoded = loaded.encode([audio["en_000.flac"], audio["ko_000.flac"]])
        drawn.append(loaded.decode(encoded, [request("en"), request("ko")], temperature=3.0, seed=7))
    assert drawn[0] == drawn[1]


def test_words_are_the_text_in_order_within_the_window(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    encoded, requests, outputs = all_sentences
    tokens = [text_tokens(backend, output) for output in outputs]
    aligned = backend.align(encoded, requests, tokens)
    for words, ids, n_samples in zip(aligned, tokens, encoded.n_samples, strict=True):
        assert "".join(word.text for word in words) == backend.tokens.decode(ids)
        assert all(0.0 <= word.start_s <= word.end_s <= seconds_from_samples(n_samples) for word in words)
        assert all(before.end_s <= after.start_s for before, after in pairwise(words))
        assert all(0.0 < word.probability <= 1.0 for word in words)
        assert np.mean([word.probability for word in words]) > 0.8


def test_a_window_is_aligned_as_if_alone(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    encoded, requests, outputs = all_sentences
    places = [15, 0, 20]
    tokens = [text_tokens(backend, outputs[place]) for place in places]
    together = backend.align(backend.select(encoded, places), [requests[p] for p in places], tokens)
    for place, ids, words in zip(places, tokens, together, strict=True):
        (alone,) = backend.align(backend.select(encoded, [place]), [requests[place]], [ids])
        assert [(w.text, w.start_s, w.end_s) for w in alone] == [(w.text, w.start_s, w.end_s) for w in words]


def test_sentences_begin_and_end_where_they_do(
    backend: FasterWhisperBackend, references: list[Reference], audio: dict[str, Samples]
) -> None:
    """Recordings of known times, in windows of several sentences with pauses of up to 3 s between them."""
    spoken_in: list[list[Reference]] = []
    windows: list[Samples] = []
    offsets_s: list[float] = []
    requests: list[WindowRequest] = []
    for reference in (r for r in references if r["kind"] == "recording"):
        for spoken in _in_windows(reference["segments"]):
            offsets_s.append(max(0.0, spoken[0]["start"] - 0.4))
            first, last = int(offsets_s[-1] * 16_000), int((spoken[-1]["end"] + 0.3) * 16_000)
            windows.append(audio[reference["file"]][first:last])
            spoken_in.append(spoken)
            requests.append(request(reference["language"]))
    encoded = backend.encode(windows)
    outputs = backend.decode(encoded, requests)
    aligned = backend.align(encoded, requests, [text_tokens(backend, output) for output in outputs])

    start_errors_s: list[float] = []
    end_errors_s: list[float] = []
    for spoken, offset_s, output, words in zip(spoken_in, offsets_s, outputs, aligned, strict=True):
        if [w.text.strip() for w in words] != " ".join(s["text"] for s in spoken).split():
            continue  # heard otherwise: which word is which cannot be said
        for sentence, own, (start_s, end_s) in _by_sentence(backend, spoken, words, output):
            fitted = fit_to_segment(own, start_s, end_s)
            start_errors_s.append(abs(fitted[0].start_s + offset_s - sentence["start"]))
            end_errors_s.append(abs(fitted[-1].end_s + offset_s - sentence["end"]))
    assert len(start_errors_s) > 40
    assert np.median(start_errors_s) <= 0.05
    assert np.quantile(start_errors_s, 0.9) <= 0.3
    assert np.median(end_errors_s) <= 0.1


def _in_windows(segments: list[Reference]) -> list[list[Reference]]:
    windows: list[list[Reference]] = [[]]
    for segment in segments:
        if windows[-1] and segment["end"] - windows[-1][0]["start"] > 19.0:
            windows.append([])
        windows[-1].append(segment)
    return windows


def _by_sentence(
    backend: FasterWhisperBackend, spoken: list[Reference], words: tuple[Word, ...], output: WindowTokens
) -> list[tuple[Reference, tuple[Word, ...], tuple[float, float]]]:
    begin = backend.tokens.timestamp_begin
    stamps_s = [(token - begin) * 0.02 for token in output.tokens if token >= begin]
    if len(stamps_s) != 2 * len(spoken):
        return []
    shared, place = [], 0
    for number, sentence in enumerate(spoken):
        count = len(sentence["text"].split())
        stamps = (stamps_s[2 * number], stamps_s[2 * number + 1])
        shared.append((sentence, words[place : place + count], stamps))
        place += count
    return shared


@pytest.mark.parametrize("n_samples", [1, 100, 320, 1_000, 3_000])
def test_words_of_a_window_shorter_than_its_text(backend: FasterWhisperBackend, n_samples: int) -> None:
    encoded = backend.encode([np.full(n_samples, 0.1, np.float32)])
    tokens = backend.tokens.encode(" how can i help you")
    (words,) = backend.align(encoded, [request()], [tokens])
    assert all(0.0 <= w.start_s <= w.end_s <= n_samples / 16_000 for w in words)


def test_no_text_has_no_words(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    encoded, requests, outputs = all_sentences
    chosen = backend.select(encoded, [0, 15])
    nothing, something = backend.align(chosen, [requests[0], requests[15]], [[], text_tokens(backend, outputs[15])])
    assert nothing == ()
    assert something


def test_more_text_than_the_decoder_holds_is_refused(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    with pytest.raises(ValueError, match="448 positions"):
        backend.align(backend.select(all_sentences[0], [0]), [request()], [[257] * 450])


def test_requests_must_match_the_windows(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    with pytest.raises(ValueError, match="30 windows encoded"):
        backend.decode(all_sentences[0], [request()])


def test_unknown_language_is_refused(backend: FasterWhisperBackend, all_sentences: Any) -> None:
    with pytest.raises(UnknownLanguage, match="'xx'"):
        backend.decode(backend.select(all_sentences[0], [0]), [request("xx")])


def test_int8_keeps_the_text(
    ct2: Path, backend: FasterWhisperBackend, sentences: list[Reference], audio: dict[str, Samples], all_sentences: Any
) -> None:
    small = load(str(ct2), "cpu", "int8_float32", cpu_threads=1)
    assert small.compute_type == "int8_float32"
    english = [place for place, s in enumerate(sentences) if s["language"] == "en"][:5]
    encoded = small.encode([audio[sentences[place]["file"]] for place in english])
    outputs = small.decode(encoded, [request()] * len(english))
    assert jiwer.wer([sentences[p]["text"] for p in english], texts(small, outputs)) <= 0.03
    small.close()


@pytest.mark.skipif(ctranslate2.get_cuda_device_count() == 0, reason="no CUDA device")
def test_on_a_gpu_as_on_the_cpu(
    ct2: Path, sentences: list[Reference], audio: dict[str, Samples], all_sentences: Any
) -> None:
    _, requests, outputs = all_sentences
    gpu = load(str(ct2), "cuda", "auto", cpu_threads=2)
    assert (gpu.device, gpu.compute_type) == ("cuda", "float16")
    encoded = gpu.encode([audio[s["file"]] for s in sentences])
    on_gpu = gpu.decode(encoded, requests)
    assert jiwer.wer(texts(gpu, outputs), texts(gpu, on_gpu)) <= 0.02
    chosen = gpu.select(encoded, [20, 3])
    assert [o.tokens for o in gpu.decode(chosen, [requests[20], requests[3]])] == [
        on_gpu[20].tokens,
        on_gpu[3].tokens,
    ]
    words = gpu.align(chosen, [requests[20], requests[3]], [text_tokens(gpu, on_gpu[p]) for p in (20, 3)])
    assert all(words)
    assert gpu.detect_languages(chosen)[0]["ko"] > 0.5
