from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_engine.mel import FRAMES_PER_WINDOW, fitting_frames, frames_with_audio, log_mel, mel_filters
from stt_engine.types import WINDOW_SAMPLES, Samples

EDGE_LENGTHS = (1, 2, 159, 160, 199, 200, 201, 400, 16_000, 479_900, 479_940, 479_960, 479_999, WINDOW_SAMPLES)


def noise(n_samples: int, seed: int = 0) -> Samples:
    return (np.random.default_rng(seed).standard_normal(n_samples) * 0.1).astype(np.float32)


def padded(samples: Samples) -> Samples:
    return np.pad(samples, (0, WINDOW_SAMPLES - len(samples)))


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_the_ones_openai_ships(n_mels: int) -> None:
    spec = find_spec("whisper")
    if spec is None or spec.origin is None:
        pytest.skip("openai-whisper is not installed")
    with np.load(Path(spec.origin).parent / "assets" / "mel_filters.npz") as assets:
        np.testing.assert_allclose(mel_filters(n_mels), assets[f"mel_{n_mels}"], atol=1e-7)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_agrees_with_faster_whisper_at_every_edge(n_mels: int) -> None:
    windows = [noise(n, seed=n) for n in EDGE_LENGTHS]
    ours = log_mel(windows, n_mels)
    assert ours.shape == (len(windows), n_mels, 3000)
    assert ours.dtype == np.float32
    extractor = FeatureExtractor(feature_size=n_mels)
    for window, spectrogram in zip(windows, ours, strict=True):
        np.testing.assert_allclose(spectrogram, extractor(padded(window), padding=0), atol=1e-3)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_agrees_with_openai_whisper(n_mels: int) -> None:
    audio = pytest.importorskip("whisper.audio")
    for n_samples in (1, 200, 100_003, 479_999, WINDOW_SAMPLES):
        theirs = audio.log_mel_spectrogram(padded(noise(n_samples)), n_mels).numpy()
        np.testing.assert_allclose(log_mel([noise(n_samples)], n_mels)[0], theirs, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(n_samples=st.integers(1, WINDOW_SAMPLES))
def test_silence_added_by_hand_changes_nothing(n_samples: int) -> None:
    samples = noise(n_samples)
    np.testing.assert_allclose(log_mel([samples], 80), log_mel([padded(samples)], 80), atol=1e-5)


def test_frames_beyond_the_audio_hold_one_value() -> None:
    samples = noise(16_000)
    spectrogram = log_mel([samples], 80)[0]
    first_silent = frames_with_audio(16_000)
    assert first_silent == 102
    assert np.unique(spectrogram[:, first_silent:]).size == 1
    assert np.isclose(spectrogram.max() - spectrogram.min(), 2.0, atol=1e-5)  # a range of 8, divided by 4


def test_digital_silence_is_the_floor() -> None:
    assert np.all(log_mel([np.zeros(16_000, np.float32)], 80) == -1.5)


def test_each_window_is_as_if_alone_with_any_threads() -> None:
    windows = [noise(n, seed=n) * scale for n, scale in ((16_000, 1.0), (480_000, 0.001), (1, 1.0), (80_000, 0.1))]
    windows = [window.astype(np.float32) for window in windows]
    alone = np.concatenate([log_mel([window], 80) for window in windows])
    np.testing.assert_array_equal(log_mel(windows, 80), alone)
    np.testing.assert_array_equal(log_mel(windows, 80, threads=3), alone)


def test_samples_are_left_as_they_were() -> None:
    samples = noise(1_000)
    before = samples.copy()
    log_mel([samples], 80)
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize("n_samples", [0, WINDOW_SAMPLES + 1])
def test_windows_of_impossible_length_are_refused(n_samples: int) -> None:
    with pytest.raises(ValueError, match="1 to 480000 samples"):
        log_mel([np.zeros(n_samples, np.float32)], 80)


def test_other_numbers_of_bands_are_refused() -> None:
    with pytest.raises(ValueError, match="not 64"):
        mel_filters(64)


@given(n_samples=st.integers(1, WINDOW_SAMPLES))
def test_frames_with_audio_are_those_within_200_samples_of_it(n_samples: int) -> None:
    count = frames_with_audio(n_samples)
    assert 1 <= count <= FRAMES_PER_WINDOW
    assert (count - 1) * 160 - 200 < n_samples
    assert count == FRAMES_PER_WINDOW or count * 160 - 200 >= n_samples


@given(st.lists(st.integers(1, WINDOW_SAMPLES), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_a_fitted_batch_is_the_beginning_of_a_padded_one(lengths: list[int]) -> None:
    windows = [noise(n, seed=n) for n in lengths]
    n_frames = fitting_frames(windows)
    assert 600 <= n_frames <= FRAMES_PER_WINDOW and n_frames % 2 == 0
    assert n_frames == FRAMES_PER_WINDOW or n_frames >= max(map(frames_with_audio, lengths)) + 100
    fitted, full = log_mel(windows, 80, n_frames=n_frames), log_mel(windows, 80)
    np.testing.assert_array_equal(fitted, full[:, :, :n_frames])
