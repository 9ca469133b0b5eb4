from __future__ import annotations

import time

import numpy as np
import pytest

from stt_engine.backends.base import Backend
from stt_engine.backends.fake import FakeBackend, describe, load
from stt_engine.errors import DeviceOutOfMemory, UnknownLanguage
from stt_engine.types import Samples
from stt_engine.windows import WindowRequest


def tone(n_samples: int, amplitude: float = 0.1, offset: float = 0.0) -> Samples:
    return (np.sin(np.arange(n_samples) * 0.3) * amplitude + offset).astype(np.float32)


def request(language: str = "en", *, timestamps: bool = True, task: str = "transcribe") -> WindowRequest:
    return WindowRequest(
        language=language, task="translate" if task == "translate" else "transcribe", timestamps=timestamps
    )


def test_each_window_says_what_its_samples_are() -> None:
    backend = FakeBackend()
    windows = [tone(16_000), tone(8_000, 0.5), np.zeros(4_000, np.float32)]
    outputs = backend.decode(backend.encode(windows), [request()] * 3)
    said = [backend.tokens.decode(output.tokens) for output in outputs]
    assert said == [" " + describe(windows[0]), " " + describe(windows[1]), ""]
    assert describe(windows[0]).startswith("normal 16000samples ")
    assert describe(windows[1]).startswith("loud 8000samples ")
    assert [output.no_speech_prob > 0.6 for output in outputs] == [False, False, True]


def test_one_sample_moved_is_another_text() -> None:
    samples = tone(1_000)
    assert describe(samples) != describe(samples[::-1].copy())
    assert describe(samples) != describe(samples[1:])


def test_text_outlives_the_spools_int16() -> None:
    samples = tone(1_000)
    spooled = np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype(np.int16)
    assert describe((spooled / 32_768).astype(np.float32)) == describe(samples)


def test_language_and_task_asked_for_stand_in_the_text() -> None:
    backend = FakeBackend()
    encoded = backend.encode([tone(1_000)] * 3)
    outputs = backend.decode(encoded, [request("ko"), request("en", task="translate"), request()])
    said = [backend.tokens.decode(output.tokens).split() for output in outputs]
    assert [words[0] for words in said] == ["ko", "translated", "normal"]
    with pytest.raises(UnknownLanguage, match="'xx'"):
        backend.decode(backend.select(encoded, [0]), [request("xx")])


def test_language_is_the_sign_of_the_mean() -> None:
    backend = FakeBackend()
    encoded = backend.encode([tone(1_000), tone(1_000, offset=0.1), tone(1_000, offset=-0.1)])
    found = backend.detect_languages(encoded)
    assert [max(each, key=each.__getitem__) for each in found] == ["en", "ko", "ja"]
    assert [sum(each.values()) for each in found] == pytest.approx([1.0] * 3)


def test_timestamps_where_asked_for() -> None:
    backend = FakeBackend()
    begin = backend.tokens.timestamp_begin
    with_times, without = backend.decode(backend.encode([tone(16_000)] * 2), [request(), request(timestamps=False)])
    assert (with_times.tokens[0], with_times.tokens[-1]) == (begin, begin + 50)
    assert all(token < begin for token in without.tokens)


def test_words_share_the_window() -> None:
    backend = FakeBackend()
    encoded = backend.encode([tone(16_000)])
    text = [t for t in backend.decode(encoded, [request()])[0].tokens if t < backend.tokens.eot]
    (words,) = backend.align(encoded, [request()], [text])
    assert "".join(w.text for w in words) == " " + describe(tone(16_000))
    assert words[0].start_s == 0.0
    assert words[-1].end_s == pytest.approx(1.0)


def test_select_picks_in_order() -> None:
    backend = FakeBackend()
    windows = [tone(1_000 + n) for n in range(4)]
    chosen = backend.select(backend.encode(windows), [3, 1])
    said = [backend.tokens.decode(o.tokens) for o in backend.decode(chosen, [request()] * 2)]
    assert said == [" " + describe(windows[3]), " " + describe(windows[1])]
    assert chosen.n_samples == (1_003, 1_001)


def test_out_of_memory_above_a_batch_size() -> None:
    backend = FakeBackend(max_device_batch=2)
    assert backend.encode([tone(100)] * 2).n_windows == 2
    with pytest.raises(DeviceOutOfMemory, match="3 windows"):
        backend.encode([tone(100)] * 3)


def test_slow_when_told() -> None:
    backend = FakeBackend(seconds_per_window=0.02)
    started_s = time.monotonic()
    backend.encode([tone(100)] * 3)
    assert time.monotonic() - started_s >= 0.06


def test_loads_as_every_backend_does() -> None:
    backend = load("anything", "auto", "auto", cpu_threads=1)
    assert isinstance(backend, Backend)
    assert (backend.name, backend.model, backend.device) == ("fake", "anything", "cpu")
