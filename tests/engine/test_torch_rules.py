"""The vectorised rules against openai-whisper's own filters, which loop over the rows."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.decoding import ApplyTimestampRules, SuppressBlank, SuppressTokens
from whisper.tokenizer import Tokenizer, get_tokenizer

from stt_engine.backends.torch_decoding import _choose, _draws
from stt_engine.backends.torch_rules import TokenRules
from stt_engine.tokens import TokenTable

TOKENIZER: Tokenizer = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
TABLE = TokenTable.from_openai_tokenizer(TOKENIZER, True)
PROMPT = [TOKENIZER.sot, TOKENIZER.to_language_token("en"), TOKENIZER.transcribe]
N_VOCABULARY = TABLE.timestamp_begin + 1501
CPU = torch.device("cpu")


def theirs(logits: torch.Tensor, tokens: list[list[int]], timestamps: bool) -> torch.Tensor:
    context = torch.tensor([PROMPT + row for row in tokens])
    masked = logits.clone()
    filters = [SuppressBlank(TOKENIZER, len(PROMPT)), SuppressTokens(TABLE.suppressed)]
    if timestamps:
        filters.append(ApplyTimestampRules(TOKENIZER, len(PROMPT), 50))
    for rule in filters:
        rule.apply(masked, context)
    return masked


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.sampled_from([0.0, 4.0, 9.0, 14.0]))
def test_rules_forbid_what_openai_forbids(seed: int, length: int, lift: float) -> None:
    """Pasts that the rules themselves allow, of several rows, with the time stamps more or less likely."""
    generator = torch.Generator().manual_seed(seed)
    choose = random.Random(seed)
    timestamps = [True, True, False, True, False]
    rules = TokenRules(TABLE, timestamps, CPU)
    pasts: list[list[int]] = [[] for _ in timestamps]
    for step in range(length + 1):
        logits = torch.randn((len(timestamps), N_VOCABULARY), generator=generator)
        logits[:, TABLE.timestamp_begin :] += lift * choose.random()
        ours = logits.clone()
        rules.apply(ours)
        for row, on in enumerate(timestamps):
            expected = theirs(logits[row : row + 1], [pasts[row]], on)[0]
            assert torch.equal(ours[row], expected), (step, pasts[row])
        tokens = ours.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
        for past, token in zip(pasts, tokens.tolist(), strict=True):
            past.append(token)
        rules.update(tokens)


def test_rules_go_with_the_rows_that_stay() -> None:
    rules = TokenRules(TABLE, [True, False, True], CPU)
    rules.update(torch.tensor([TABLE.timestamp_begin + 3, 400, TABLE.timestamp_begin + 7]))
    rules.update(torch.tensor([400, 401, 402]))
    rules.update(torch.tensor([TABLE.timestamp_begin + 30, 402, 403]))
    rules.keep(torch.tensor([2, 0]))
    logits = torch.zeros((2, N_VOCABULARY))
    rules.apply(logits)
    after_text = theirs(torch.zeros(1, N_VOCABULARY), [[TABLE.timestamp_begin + 7, 402, 403]], True)
    after_time = theirs(
        torch.zeros(1, N_VOCABULARY), [[TABLE.timestamp_begin + 3, 400, TABLE.timestamp_begin + 30]], True
    )
    assert torch.equal(logits, torch.cat([after_text, after_time]))


def test_suppressed_tokens_are_openais() -> None:
    names = ("transcribe", "translate", "sot", "sot_prev", "sot_lm", "no_speech")
    expected = set(TOKENIZER.non_speech_tokens) | {getattr(TOKENIZER, name) for name in names}
    assert set(TABLE.suppressed) == expected


def test_drawing_follows_the_distribution_and_never_takes_what_is_forbidden() -> None:
    logits = torch.log(torch.tensor([[0.0, 0.5, 0.0, 0.3, 0.2, 0.0]])).repeat(20_000, 1)
    drawn, logprobs = _choose(logits, 1.0, _draws(20_000, 1, seed=3)[:, 0])
    shares = torch.bincount(drawn, minlength=6) / 20_000
    assert torch.allclose(shares, torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0]), atol=0.015)
    assert torch.allclose(logprobs.exp(), torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])[drawn], atol=1e-5)


@pytest.mark.parametrize("draw", [1.0, 1e-30])
def test_the_ends_of_the_draw_hit_allowed_tokens(draw: float) -> None:
    logits = torch.tensor([[float("-inf"), 1.0, 1.0, float("-inf")]])
    drawn, _ = _choose(logits, 0.4, torch.tensor([draw]))
    assert int(drawn) in (1, 2)


def test_a_low_temperature_sharpens_but_the_log_probability_stays_the_models() -> None:
    logits = torch.log(torch.tensor([[0.6, 0.4]])).repeat(5_000, 1)
    drawn, logprobs = _choose(logits, 0.2, _draws(5_000, 1, seed=1)[:, 0])
    assert (drawn == 0).float().mean() == pytest.approx(0.6**5 / (0.6**5 + 0.4**5), abs=0.02)
    assert logprobs[drawn == 0][0].exp() == pytest.approx(0.6, abs=1e-5)


def test_a_table_of_an_english_model_has_its_own_numbers() -> None:
    english = TokenTable.from_openai_tokenizer(get_tokenizer(False), False)
    assert dataclasses.replace(english).timestamp_begin == english.no_timestamps + 1 != TABLE.timestamp_begin
    rules = TokenRules(english, [True], CPU)
    logits = torch.zeros(1, english.timestamp_begin + 1501)
    rules.apply(logits)
    allowed = torch.isfinite(logits[0]).nonzero()[:, 0]
    assert allowed.tolist() == list(range(english.timestamp_begin, english.timestamp_begin + 51))
