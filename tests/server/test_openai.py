"""OpenAI's own Python client against our server."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from stt_engine import WhisperSTT
from tests.server.conftest import CLIP_TEXT, KEY
from tests.server.running import Running


@pytest.fixture(scope="module")
def openai_client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


def test_json(openai_client: openai.OpenAI, samples: Path) -> None:
    with (samples / "en_000.flac").open("rb") as file:
        found = openai_client.audio.transcriptions.create(model="whisper-1", file=file)
    assert found.text == CLIP_TEXT
    assert found.usage is not None


@pytest.mark.parametrize(
    ("kind", "start"), [("text", CLIP_TEXT), ("srt", "1\n00:00:00,"), ("vtt", "WEBVTT\n\n00:00:00.")]
)
def test_text_formats(openai_client: openai.OpenAI, samples: Path, kind: str, start: str) -> None:
    found = openai_client.audio.transcriptions.create(
        model="fixture", file=samples / "en_000.flac", response_format=kind, language="en"  # type: ignore[call-overload]
    )  # fmt: skip
    assert str(found).startswith(start)
    assert CLIP_TEXT in str(found)


def test_verbose_json_with_words(openai_client: openai.OpenAI, samples: Path, fixture_model: Path) -> None:
    found = openai_client.audio.transcriptions.create(
        model="fixture",
        file=samples / "ko_003.flac",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        prompt="콜센터",
        temperature=0.0,
    )
    assert found.language == "korean"
    assert found.duration == pytest.approx(3.3, abs=0.3)
    assert found.segments is not None and found.words is not None
    assert found.segments[0].end <= found.duration
    assert " ".join(word.word for word in found.words) == found.text
    tokens = WhisperSTT(fixture_model, device="cpu", backend="faster-whisper", cpu_threads=1).backend.tokens
    assert [tokens.decode(segment.tokens) for segment in found.segments] == [s.text for s in found.segments]
    only_words = openai_client.audio.transcriptions.create(
        model="fixture",
        file=samples / "ko_003.flac",
        response_format="verbose_json",
        timestamp_granularities=["word"],
    )
    assert only_words.words and not only_words.segments


def test_streaming(openai_client: openai.OpenAI, samples: Path) -> None:
    events = list(
        openai_client.audio.transcriptions.create(
            model="fixture", file=samples / "ko_long2.flac", language="ko", stream=True
        )
    )
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) >= 2
    last = events[-1]
    assert last.type == "transcript.text.done"
    assert "".join(deltas) == last.text


def test_translations(openai_client: openai.OpenAI, samples: Path) -> None:
    found = openai_client.audio.translations.create(model="fixture", file=samples / "ko_000.flac")
    assert isinstance(found.text, str)
    verbose = openai_client.audio.translations.create(
        model="fixture", file=samples / "ko_000.flac", response_format="verbose_json"
    )
    assert verbose.language == "english"


def test_models(openai_client: openai.OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == ["fixture"]
    assert openai_client.models.retrieve("fixture").owned_by == "nightscribe"
    with pytest.raises(openai.NotFoundError, match="fixture"):
        openai_client.models.retrieve("gpt-4o")


def test_errors_are_the_clients_own(openai_client: openai.OpenAI, samples: Path, strict_server: Running) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        openai_client.audio.transcriptions.create(model="fixture", file=samples / "en_000.flac", language="xx")
    assert caught.value.param == "language"
    with pytest.raises(openai.NotFoundError):
        openai_client.audio.transcriptions.create(model="large-v9", file=samples / "en_000.flac")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        openai_client.audio.transcriptions.create(
            model="fixture", file=samples / "en_000.flac", timestamp_granularities=["word"]
        )
    assert caught.value.param == "timestamp_granularities[]"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{strict_server.url}/v1", api_key="wrong").models.list()
    assert list(openai.OpenAI(base_url=f"{strict_server.url}/v1", api_key=KEY).models.list())
