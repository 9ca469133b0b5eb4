"""Each mechanism of quality, on a recording that comes out wrong with it off; and what is flagged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.assemble import assemble
from stt_engine.backends.base import Backend
from stt_engine.decoding import ChunkDecoder
from stt_engine.invented_phrases import INVENTED_PHRASES, is_invented_phrase
from stt_engine.language import LanguageGuess
from stt_engine.loading import AUTO_ORDER, load_backend
from stt_engine.quality import FLAGS, compression_ratio, is_loop
from stt_engine.speech_regions import VadOptions
from stt_engine.split import SplitOptions, split_audio
from stt_engine.types import SAMPLE_RATE_HZ, ChunkAudio, ChunkTranscript, Region, TranscribeOptions
from tests.long_form import long

QUALITY = Path(__file__).parents[1] / "data" / "quality"
TRUTH = {row["file"]: row for row in map(json.loads, (QUALITY / "reference.jsonl").read_text().splitlines())}

ONE_OF_TORCH = [*AUTO_ORDER[:-1], pytest.param(AUTO_ORDER[-1], marks=long)]
"""The two on torch share their decoder; that they write the same is in test_torch_backends.py, in every run."""


@pytest.fixture(scope="module", params=AUTO_ORDER)
def backend(request: pytest.FixtureRequest, fixture_model: Path) -> Iterator[Backend]:
    loaded = load_backend(request.param, str(fixture_model), device="cpu", compute_type="float32", cpu_threads=1)
    yield loaded
    loaded.close()


def chunks_of(path: Path, vad: VadOptions | None = None) -> list[ChunkAudio]:
    return list(split_audio(path, file_id=path.name, name=path.name, options=SplitOptions(vad=vad or VadOptions())))


def heard(
    backend: Backend, chunks: Sequence[ChunkAudio], language: str, options: TranscribeOptions
) -> list[ChunkTranscript]:
    known = {audio.chunk.file_id: LanguageGuess(language, 1.0) for audio in chunks}
    return ChunkDecoder(backend, options).transcribe(chunks, known)


def text_of(transcripts: Sequence[ChunkTranscript]) -> str:
    return " ".join(segment.text.strip() for chunk in transcripts for segment in chunk.segments)


def flags_of(transcripts: Sequence[ChunkTranscript]) -> set[str]:
    of_segments = {flag for chunk in transcripts for segment in chunk.segments for flag in segment.flags}
    return of_segments | {flag for chunk in transcripts for flag in chunk.flags}


def error_rate(name: str, transcripts: Sequence[ChunkTranscript]) -> float:
    """Character error rate without spaces."""
    return float(jiwer.cer(TRUTH[name]["text"].replace(" ", ""), text_of(transcripts).replace(" ", "")))


def rates(backend: Backend, name: str, off: TranscribeOptions, on: TranscribeOptions) -> tuple[float, float]:
    chunks, language = chunks_of(QUALITY / name), TRUTH[name]["language"]
    return (
        error_rate(name, heard(backend, chunks, language, off)),
        error_rate(name, heard(backend, chunks, language, on)),
    )


def greedy(**on: object) -> TranscribeOptions:
    """One attempt and no second look, but for what is switched on."""
    usual = {"temperatures": (0.0,), "coverage_gap_s": None, "sparse_share": None}
    return TranscribeOptions(**(usual | on))  # type: ignore[arg-type]


LADDER = TranscribeOptions().temperatures


def said_again(path: Path, times: int, folder: Path) -> Path:
    once = soundfile.read(path, dtype="float32")[0]
    said = folder / f"{times}_times.wav"
    soundfile.write(said, np.tile(once, times), SAMPLE_RATE_HZ)
    return said


def unbroken(chunks: Sequence[ChunkAudio]) -> list[ChunkAudio]:
    """The same where no silence is known to halve a window at."""
    spans = [(audio.chunk.regions[0].start_sample, audio.chunk.regions[-1].end_sample) for audio in chunks]
    return [
        replace(audio, chunk=replace(audio.chunk, regions=(Region(*span),)))
        for audio, span in zip(chunks, spans, strict=True)
    ]


@pytest.mark.parametrize("backend", ONE_OF_TORCH, indirect=True)
def test_a_loop_is_heard_again_in_halves(backend: Backend) -> None:
    name = "loops.flac"
    chunks, language = chunks_of(QUALITY / name), TRUTH[name]["language"]
    assert error_rate(name, heard(backend, unbroken(chunks), language, greedy())) > 2.0
    said = heard(backend, chunks, language, greedy())
    assert error_rate(name, said) < 0.1
    assert flags_of(said) == set()


@pytest.mark.parametrize("backend", ONE_OF_TORCH, indirect=True)
def test_a_loop_that_cannot_be_halved_is_decoded_again_at_other_temperatures(backend: Backend) -> None:
    name = "loops.flac"
    chunks, language = unbroken(chunks_of(QUALITY / name)), TRUTH[name]["language"]
    assert error_rate(name, heard(backend, chunks, language, greedy())) > 2.0
    assert error_rate(name, heard(backend, chunks, language, greedy(temperatures=LADDER))) < 0.3


def test_a_loop_that_stays_is_flagged(backend: Backend) -> None:
    chunks = unbroken(chunks_of(QUALITY / "loops.flac"))
    assert "repetition" in flags_of(heard(backend, chunks, TRUTH["loops.flac"]["language"], greedy()))


@pytest.mark.parametrize("backend", ONE_OF_TORCH, indirect=True)
def test_what_a_speaker_repeats_is_believed(backend: Backend, samples: Path, tmp_path: Path) -> None:
    """A caller who says the same six times over, at even pace."""
    path = said_again(samples / "en_012.flac", 6, tmp_path)
    (chunk,) = heard(backend, chunks_of(path), "en", greedy(temperatures=LADDER))
    assert chunk.decodes > 1
    assert text_of([chunk]).count("package") == 6


@pytest.mark.parametrize("backend", ONE_OF_TORCH, indirect=True)
def test_what_repeats_itself_at_every_temperature_is_flagged_and_stays(
    backend: Backend, samples: Path, tmp_path: Path
) -> None:
    """The same caller where no silence is known to halve it at: no temperature can make that anything else."""
    path = said_again(samples / "en_012.flac", 6, tmp_path)
    (chunk,) = heard(backend, unbroken(chunks_of(path)), "en", greedy(temperatures=LADDER))
    assert chunk.decodes == len(LADDER)
    assert "repetition" in chunk.flags
    assert all("repetition" in segment.flags for segment in chunk.segments)
    assert text_of([chunk]).count("package") >= 4


@pytest.mark.parametrize("backend", ONE_OF_TORCH, indirect=True)
def test_nonsense_of_which_the_model_is_unsure_is_decoded_again(backend: Backend) -> None:
    off, on = rates(
        backend,
        "doubtful.flac",
        greedy(compression_ratio_threshold=None),
        greedy(compression_ratio_threshold=None, temperatures=LADDER),
    )
    assert off > 2.5
    assert on < 1.2


def test_doubt_that_stays_is_flagged(backend: Backend) -> None:
    chunks = chunks_of(QUALITY / "doubtful.flac")
    assert "low_confidence" in flags_of(heard(backend, chunks, TRUTH["doubtful.flac"]["language"], greedy()))


def test_speech_behind_the_last_time_stamp_is_decoded_again(backend: Backend) -> None:
    off, on = rates(backend, "left_behind.flac", greedy(), greedy(coverage_gap_s=1.0))
    assert off > 0.5
    assert on < 0.1


def test_loss_shows_in_the_seconds_covered(backend: Backend) -> None:
    path = QUALITY / "left_behind.flac"
    covered_s = []
    for options in (greedy(), greedy(coverage_gap_s=1.0)):
        splitter = split_audio(path, file_id=path.name, name=path.name)
        found = heard(backend, list(splitter), TRUTH[path.name]["language"], options)
        transcript = assemble(found, info=splitter.info, speech_s=splitter.speech_s, backend="b", model="m")
        assert transcript.covered_s <= transcript.speech_s + 1e-6
        covered_s.append(transcript.covered_s / transcript.speech_s)
    assert covered_s[0] < 0.5
    assert covered_s[1] > 0.75  # speech_s holds the padding around each region


def test_a_segment_with_too_little_text_for_its_speech_is_decoded_again(backend: Backend) -> None:
    off, on = rates(backend, "skipped_sentence.flac", greedy(), greedy(sparse_share=0.6))
    assert off > 0.25
    assert on < 0.1


def test_text_over_what_is_no_speech_is_left_out(backend: Backend) -> None:
    chunks = chunks_of(QUALITY / "hum.flac", VadOptions(threshold=0.1))
    assert chunks, "the tones must get past the voice activity for this test to say anything"
    assert text_of(heard(backend, chunks, "en", greedy(no_speech_threshold=None)))
    assert text_of(heard(backend, chunks, "en", greedy())) == ""
    assert text_of(heard(backend, chunks, "en", TranscribeOptions())) == ""


def test_speech_backwards_in_noise_is_left_out(backend: Backend) -> None:
    """Here the voice activity is as it is for everyone."""
    chunks = chunks_of(QUALITY / "murmur.flac")
    assert sum(audio.chunk.speech_s for audio in chunks) > 2.0
    assert text_of(heard(backend, chunks, "en", TranscribeOptions(no_speech_threshold=None)))
    assert text_of(heard(backend, chunks, "en", TranscribeOptions())) == ""


def test_text_in_the_padding_is_left_out(backend: Backend) -> None:
    chunks = chunks_of(QUALITY / "padding.flac")
    said = heard(backend, chunks, "en", TranscribeOptions())
    assert all(segment.start_s < segment.end_s for chunk in said for segment in chunk.segments)
    assert error_rate("padding.flac", said) < 0.8
    (greedily,) = heard(backend, chunks, "en", greedy(timestamps="word"))
    # Words are shared among the segments that are left, none with what was left out.
    for segment in greedily.segments:
        assert "".join(word.text for word in segment.words) == segment.text


def test_speech_for_which_the_model_writes_nothing_is_told(backend: Backend) -> None:
    chunks = chunks_of(QUALITY / "unheard.flac")
    assert flags_of(heard(backend, chunks, "en", greedy())) == set()
    silent = heard(backend, chunks, "en", TranscribeOptions())
    assert text_of(silent) == ""
    assert flags_of(silent) == {"uncovered_speech"}


@pytest.mark.parametrize("backend", ONE_OF_TORCH, indirect=True)
def test_the_whole_file_votes_on_its_language(backend: Backend, samples: Path, tmp_path: Path) -> None:
    """Half a minute of English before Korean: whoever asks the first 30 seconds takes it for English."""
    pause = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
    names = [f"en_{i:03d}.flac" for i in (0, 4, 5, 8, 12, 14, 1, 10)] + [f"ko_{i:03d}.flac" for i in range(15)]
    pieces = [piece for name in names for piece in (soundfile.read(samples / name, dtype="float32")[0], pause)]
    path = tmp_path / "bilingual.wav"
    soundfile.write(path, np.concatenate(pieces), SAMPLE_RATE_HZ)
    chunks = chunks_of(path)
    decoder = ChunkDecoder(backend, TranscribeOptions())
    assert decoder.detect_language(chunks[:1]).language == "en"
    assert {chunk.language for chunk in decoder.transcribe(chunks)} == {"ko"}
    lines = (samples / "reference.jsonl").read_text().splitlines()
    texts = {row["file"]: row["text"] for row in map(json.loads, lines)}
    korean = " ".join(texts[name] for name in names if name.startswith("ko")).replace(" ", "")

    def missed(first_only: bool) -> float:
        known = {path.name: decoder.detect_language(chunks[:1])} if first_only else {}
        said = text_of(decoder.transcribe(chunks, known)).replace(" ", "")
        return float(jiwer.cer(korean, "".join(letter for letter in said if letter >= "가")))

    assert missed(first_only=False) < missed(first_only=True)


def test_three_languages_in_one_device_batch(backend: Backend, samples: Path) -> None:
    names = ["en_004.flac", "ko_003.flac", "en_012.flac", "ko_008.flac", "en_008.flac", "ko_011.flac"]
    languages = ["en", "ko", "en", "ko", "de", "de"]
    chunks = [chunk for name in names for chunk in chunks_of(samples / name)]
    assert len(chunks) == len(names)
    known = {name: LanguageGuess(language, 1.0) for name, language in zip(names, languages, strict=True)}
    decoder = ChunkDecoder(backend, TranscribeOptions(), device_batch_windows=len(names))
    together = decoder.transcribe(chunks, known)
    assert [chunk.language for chunk in together] == languages
    for chunk, whole in zip(chunks, together, strict=True):
        (alone,) = decoder.transcribe([chunk], known)
        assert text_of([alone]) == text_of([whole]) != ""


def test_phrases_that_whisper_invents_are_flagged(backend: Backend) -> None:
    for phrases in INVENTED_PHRASES.values():
        for phrase in phrases:
            assert is_invented_phrase(f" {phrase.upper()} ")
    assert not is_invented_phrase("감사합니다 고객님")
    assert not is_invented_phrase("thank you very much for your help")


def test_a_phrase_invented_over_what_is_no_speech_is_flagged(backend: Backend) -> None:
    (chunk,) = heard(backend, chunks_of(QUALITY / "backwards.flac"), "ko", greedy())
    flagged = [segment.text.strip() for segment in chunk.segments if "invented_phrase" in segment.flags]
    assert set(flagged) == {"감사합니다"}
    assert len(chunk.segments) > len(flagged)


@pytest.mark.espeak
def test_an_invented_phrase_is_flagged_in_a_transcript_and_stays(backend: Backend, tmp_path: Path) -> None:
    from tests.synthesis.espeak import Espeak

    speech = Espeak().say("감사합니다", "ko", words_per_minute=165, pitch=50, pitch_range=50)
    pause = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
    path = tmp_path / "thanks.wav"
    soundfile.write(path, np.concatenate([pause, speech, pause]), SAMPLE_RATE_HZ)
    said = heard(backend, chunks_of(path), "ko", TranscribeOptions())
    assert text_of(said) == "감사합니다"
    assert flags_of(said) == {"invented_phrase"}


def test_measures_of_repetition() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio("your order is ready " * 20) > 2.4 > compression_ratio("your order is ready")
    assert is_loop("is my order " * 4)
    assert not is_loop("zero zero zero zero")
    assert not is_loop("yes yes no no yes no")
    assert all(FLAGS.values())


@given(
    before=st.lists(st.sampled_from("abc"), max_size=4),
    phrase=st.lists(st.sampled_from(["yes", "no", "여보세요", "a-longer-word"]), min_size=1, max_size=5),
    times=st.integers(1, 9),
    after=st.lists(st.sampled_from("abc"), max_size=4),
)
def test_a_loop_is_a_phrase_four_times_in_a_row(
    before: list[str], phrase: list[str], times: int, after: list[str]
) -> None:
    words = [*before, *phrase * times, *after]
    assert is_loop(" ".join(words)) == any(
        words[start : start + 4 * n_words] == words[start : start + n_words] * 4
        and (
            len(" ".join(words[start : start + n_words])) > 12
            or words[start : start + 8] == (words[start : start + n_words] * 8)[:8]
        )
        for n_words in range(1, len(words) // 4 + 1)
        for start in range(len(words) - 4 * n_words + 1)
    )
