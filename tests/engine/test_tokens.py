from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_engine.errors import ModelFormatError, ModelNotFound, UnknownLanguage, UnsupportedOption
from stt_engine.tokens import MAX_PREVIOUS_TOKENS, TokenTable
from stt_engine.windows import WindowRequest

SENTENCES = [
    ("en", " Hello, it's 12:30 (half past) — don't be late!"),
    ("ko", " 안녕하세요, 고객님. 무엇을 도와드릴까요?"),
    ("ja", "今日はいい天気ですね。🎉"),
    ("zh", "你好，世界！"),
    ("de", " Über 3,5 Millionen Straßen"),
]


@pytest.fixture(scope="module")
def openai_tokenizers() -> Any:
    return pytest.importorskip("whisper.tokenizer")


@pytest.fixture(scope="module")
def table(fixture_model: Path) -> TokenTable:
    return TokenTable.from_tokenizer_file(fixture_model / "tokenizer.json")


@pytest.fixture(scope="module")
def english_table(openai_tokenizers: Any) -> TokenTable:
    return TokenTable.from_openai_tokenizer(openai_tokenizers.get_tokenizer(False))


def request(language: str = "en", **options: Any) -> WindowRequest:
    return WindowRequest(**{"language": language, "task": "transcribe", "timestamps": True, **options})


def test_file_and_openai_agree_on_every_token(table: TokenTable, openai_tokenizers: Any) -> None:
    assert TokenTable.from_openai_tokenizer(openai_tokenizers.get_tokenizer(True)) == table
    assert table.multilingual
    assert len(table.language_ids) == 99


def test_suppressed_is_what_the_model_was_published_with(table: TokenTable, fixture_model: Path) -> None:
    published = json.loads((fixture_model / "generation_config.json").read_text())["suppress_tokens"]
    assert list(table.suppressed) == published


def test_large_v3_has_cantonese_and_one_id_more(openai_tokenizers: Any, table: TokenTable) -> None:
    v3 = TokenTable.from_openai_tokenizer(openai_tokenizers.get_tokenizer(True, num_languages=100))
    assert len(v3.language_ids) == 100
    assert v3.language_ids["yue"] == 50358
    assert v3.timestamp_begin == table.timestamp_begin + 1 == 50365
    assert v3.timestamp_begin + 1501 == 51866
    assert v3.transcribe == 50360
    assert v3.transcribe in v3.suppressed


def test_english_only_model(english_table: TokenTable) -> None:
    assert not english_table.multilingual
    assert list(english_table.language_ids) == ["en"]
    assert english_table.eot == 50256
    assert english_table.prompt(request()) == (english_table.sot,)
    assert english_table.prompt(request(timestamps=False)) == (english_table.sot, english_table.no_timestamps)
    with pytest.raises(UnsupportedOption, match="English-only"):
        english_table.prompt(request(task="translate"))
    with pytest.raises(UnknownLanguage, match=r"'ko'.*it knows: en"):
        english_table.prompt(request("ko"))


def test_prompt_in_whispers_order(table: TokenTable) -> None:
    ko, en = table.language_ids["ko"], table.language_ids["en"]
    assert table.prompt(request("ko")) == (table.sot, ko, table.transcribe)
    assert table.prompt(request("en", task="translate", timestamps=False)) == (
        table.sot,
        en,
        table.translate,
        table.no_timestamps,
    )
    with_previous = table.prompt(request("en", previous_tokens=(11, 12)))
    assert with_previous == (table.start_of_prev, 11, 12, table.sot, en, table.transcribe)


def test_of_many_previous_tokens_the_last_are_kept(table: TokenTable) -> None:
    prompt = table.prompt(request(previous_tokens=tuple(range(300))))
    assert prompt[0] == table.start_of_prev
    assert prompt[1 : 1 + MAX_PREVIOUS_TOKENS] == tuple(range(300 - MAX_PREVIOUS_TOKENS, 300))
    assert prompt[1 + MAX_PREVIOUS_TOKENS] == table.sot
    assert table.prompt(request(previous_tokens=(1, 2)), max_previous=0)[0] == table.sot


def test_unknown_language_names_those_known(table: TokenTable) -> None:
    with pytest.raises(UnknownLanguage, match=r"'xx'.*en, zh, de"):
        table.prompt(request("xx"))


@given(text=st.text(max_size=60))
def test_encode_keeps_the_text_and_nothing_special(table: TokenTable, text: str) -> None:
    ids = table.encode(text)
    assert all(token < table.eot for token in ids)
    assert table.decode(ids) == text


def test_special_tokens_in_a_prompt_are_only_text(table: TokenTable, english_table: TokenTable) -> None:
    for each in (table, english_table):
        ids = each.encode(" a <|endoftext|> b")
        assert max(ids) < each.eot
        assert each.decode(ids) == " a <|endoftext|> b"


def test_decode_leaves_out_times_and_ends(table: TokenTable) -> None:
    ids = table.encode(" hello")
    assert table.decode((table.timestamp_begin, *ids, table.timestamp_begin + 50, table.eot)) == " hello"


@pytest.mark.parametrize(("language", "sentence"), SENTENCES)
def test_words_are_openais(table: TokenTable, openai_tokenizers: Any, language: str, sentence: str) -> None:
    theirs = openai_tokenizers.get_tokenizer(True, language=language)
    words, tokens = theirs.split_to_word_tokens(list(table.encode(sentence)))
    ours = table.split_to_words(table.encode(sentence), language)
    assert ours == [(word, tuple(ids)) for word, ids in zip(words, tokens, strict=True)]


@given(text=st.text(min_size=1, max_size=30), language=st.sampled_from(["en", "ko", "ja", "th"]))
def test_words_hold_all_of_the_text(table: TokenTable, text: str, language: str) -> None:
    ids = table.encode(text)
    words = table.split_to_words(ids, language)
    assert "".join(word for word, _ in words) == text
    assert tuple(token for _, tokens in words for token in tokens) == ids


@given(ids=st.lists(st.integers(0, 50_256), max_size=20), language=st.sampled_from(["en", "ja"]))
def test_words_hold_every_token_of_any_sequence(table: TokenTable, ids: list[int], language: str) -> None:
    # A model may write half a character; nothing may get lost or raise (openai-whisper's IndexError).
    words = table.split_to_words(ids, language)
    assert [token for _, tokens in words for token in tokens] == ids


def test_table_travels_to_worker_processes(table: TokenTable) -> None:
    copy = pickle.loads(pickle.dumps(table))
    assert copy == table
    assert copy.encode(" 가격은") == table.encode(" 가격은")


def test_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"tokenizer\.json is missing"):
        TokenTable.from_tokenizer_file(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{},"merges":[]}}', "no token"),
    ],
)
def test_foreign_tokenizer_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(content)
    with pytest.raises(ModelFormatError, match=message):
        TokenTable.from_tokenizer_file(file)
