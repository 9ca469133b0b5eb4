from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faster_whisper.vad import VadOptions as ReferenceOptions
from faster_whisper.vad import get_speech_timestamps, get_vad_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stt_engine.decode import open_audio
from stt_engine.errors import UsageError
from stt_engine.speech_regions import RegionTracker
from stt_engine.types import Region, Samples
from stt_engine.vad import FRAME_SAMPLES, SpeechDetector, VadOptions


def sound_of(path: Path) -> Samples:
    with open_audio(path, name=path.name) as audio:
        return np.concatenate(list(audio), axis=1)[0]


def detected(sound: Samples, options: VadOptions, cuts: list[int] | None = None) -> list[Region]:
    detector = SpeechDetector(options)
    blocks = np.split(sound, sorted(cuts or []))
    return [region for block in blocks for region in detector.feed(block[None])[0]] + detector.finish()[0]


def reference(sound: Samples, options: VadOptions) -> list[Region]:
    theirs = ReferenceOptions(
        threshold=options.threshold,
        neg_threshold=options.neg_threshold,
        min_speech_duration_ms=options.min_speech_ms,
        min_silence_duration_ms=options.min_silence_ms,
        speech_pad_ms=options.speech_pad_ms,
    )
    return [Region(found["start"], found["end"]) for found in get_speech_timestamps(sound, theirs)]


@pytest.mark.parametrize(
    "options",
    [
        VadOptions(),
        VadOptions(threshold=0.3, min_silence_ms=160, speech_pad_ms=400, min_speech_ms=0),
        VadOptions(threshold=0.6, neg_threshold=0.2, min_silence_ms=2000, speech_pad_ms=30, min_speech_ms=250),
    ],
)
def test_boundaries_are_those_of_faster_whisper(options: VadOptions, samples: Path, recordings: Path) -> None:
    paths = [*sorted(samples.glob("*.flac")), *sorted(recordings.glob("*.*a*")), *sorted(recordings.glob("*.mp3"))]
    n_regions = n_close = 0
    for path in (path for path in paths if path.suffix in (".flac", ".wav", ".mp3")):
        sound = sound_of(path)
        theirs, ours = reference(sound, options), detected(sound, options)
        n_regions += max(len(theirs), len(ours))
        if len(theirs) == len(ours):
            n_close += sum(
                abs(a.start_sample - b.start_sample) <= 800 and abs(a.end_sample - b.end_sample) <= 800
                for a, b in zip(theirs, ours, strict=True)
            )
    assert n_regions > 50
    assert n_close / n_regions >= 0.99


def test_the_network_is_silero_s(samples: Path) -> None:
    """Our graph against the one that faster-whisper ships: probabilities and state, from a state that is not zero."""
    from stt_engine.vad import _session

    frames = np.resize(sound_of(samples / "ko_long0.flac"), (200, 576))
    state = np.random.default_rng(0).normal(0, 0.3, (2, 1, 1, 128)).astype(np.float32)
    theirs = get_vad_model().session.run(None, {"input": frames, "h": state[0], "c": state[1]})
    ours = _session().run(None, {"input": frames[:, None], "h": state[0], "c": state[1]})
    assert 0.1 < float(np.mean(theirs[0] > 0.5)) < 0.99
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b.reshape(a.shape), a, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def long_call(samples: Path) -> Samples:
    return sound_of(samples / "en_long0.flac")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 22 * 16_000), max_size=30), cut_long=st.booleans())
def test_block_sizes_change_nothing(long_call: Samples, cuts: list[int], cut_long: bool) -> None:
    options = VadOptions(max_speech_s=2.0, cut_window_s=0.8) if cut_long else VadOptions()
    assert detected(long_call, options, cuts) == detected(long_call, options)


def test_two_channels_are_heard_as_each_alone(samples: Path) -> None:
    one, other = sound_of(samples / "en_000.flac"), sound_of(samples / "ko_000.flac")
    length = min(len(one), len(other))
    detector = SpeechDetector(VadOptions(), n_streams=2)
    both = np.stack([one[:length], other[:length]])
    found = [a + b for a, b in zip(detector.feed(both), detector.finish(), strict=True)]
    assert found == [detected(one[:length], VadOptions()), detected(other[:length], VadOptions())]
    assert all(found)


def test_silence_noise_and_nothing_have_no_speech(samples: Path) -> None:
    for name in ("silence.flac", "noise.flac"):
        assert detected(sound_of(samples / name), VadOptions()) == []
    assert detected(np.zeros(0, np.float32), VadOptions()) == []
    assert detected(np.zeros(1, np.float32), VadOptions()) == []


def frames_of(runs: list[tuple[int, float]]) -> Samples:
    return np.concatenate([np.zeros(0, np.float32), *(np.full(n, p, np.float32) for n, p in runs)])


RUNS = st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.9])), max_size=40)
TRACKED = st.builds(
    VadOptions,
    min_speech_ms=st.integers(0, 300),
    min_silence_ms=st.integers(0, 700),
    speech_pad_ms=st.integers(0, 500),
    max_speech_s=st.sampled_from([2.0, 5.0, 1e9]),
    cut_window_s=st.sampled_from([0.3, 3.0]),
)


def tracked(probabilities: Samples, options: VadOptions, n_samples: int, size: int) -> tuple[list[Region], list[int]]:
    tracker = RegionTracker(options)
    levels = np.linspace(0.1, 0.2, len(probabilities), dtype=np.float32)
    found: list[Region] = []
    earliest: list[int] = []
    for at in range(0, len(probabilities), size):
        new = tracker.feed(probabilities[at : at + size], levels[at : at + size])
        assert all(region.start_sample >= earliest[-1] for region in new) if earliest else True
        found += new
        earliest.append(tracker.earliest_start_sample)
    last = tracker.finish(n_samples)
    assert all(region.start_sample >= earliest[-1] for region in last) if earliest else True
    return found + last, earliest


@settings(deadline=None)
@given(runs=RUNS, options=TRACKED, size=st.integers(1, 200))
def test_regions_hold_all_speech_once(runs: list[tuple[int, float]], options: VadOptions, size: int) -> None:
    probabilities = frames_of(runs)
    n_samples = len(probabilities) * FRAME_SAMPLES
    regions, earliest = tracked(probabilities, options, n_samples, size)

    assert regions == tracked(probabilities, options, n_samples, 10_000)[0]
    assert earliest == sorted(earliest)
    covered = np.zeros(n_samples, np.int8)
    end = 0
    for region in regions:
        assert end <= region.start_sample
        assert region.end_sample <= n_samples
        assert region.end_sample - region.start_sample <= options.max_speech_s * 16_000
        end = region.end_sample
        covered[region.start_sample : region.end_sample] = 1
    # what is at or over the threshold for longer than the shortest speech is inside a region, to the frame
    start = 0
    for n, probability in runs:
        if probability >= options.threshold and n * FRAME_SAMPLES > options.min_speech_ms * 16:
            assert covered[start * FRAME_SAMPLES : (start + n) * FRAME_SAMPLES].all()
        start += n


def test_a_region_that_will_not_end_is_cut_at_its_quietest_frame() -> None:
    probabilities = np.full(300, 0.99, np.float32)
    levels = np.full(300, 0.2, np.float32)
    levels[120:123] = 0.01  # a gap between words, 3.9 s in
    tracker = RegionTracker(VadOptions(max_speech_s=5.0, speech_pad_ms=0, cut_window_s=2.0))
    regions = tracker.feed(probabilities, levels) + tracker.finish(300 * FRAME_SAMPLES)
    assert regions[0] == Region(0, 121 * FRAME_SAMPLES)
    assert regions[1].start_sample == regions[0].end_sample
    assert regions[-1].end_sample == 300 * FRAME_SAMPLES


def test_options_that_make_no_sense_are_refused() -> None:
    for wrong in ({"threshold": 0.0}, {"neg_threshold": 0.9}, {"min_silence_ms": -1}, {"max_speech_s": 0.5}):
        with pytest.raises(UsageError, match="vad"):
            VadOptions(**wrong)
