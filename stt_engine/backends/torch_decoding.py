"""Writing the tokens of a device batch, token by token, all windows at once.

Greedy at temperature 0; above it, five texts are drawn per window and the one with the best mean log probability is
kept (openai/whisper `DecodingTask` with best_of=5, `MaximumLikelihoodRanker`). The host asks the device once every few
steps which windows are done; those leave the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stt_engine.backends.torch_decoder import DecoderModules, DecoderState
from stt_engine.backends.torch_rules import TokenRules
from stt_engine.tokens import TokenTable
from stt_engine.windows import WindowTokens

BEST_OF = 5
"""Texts drawn per window above temperature 0."""

_GPU_STEPS_BETWEEN_LOOKS = 4
"""A GPU that is asked at every step stands idle while the host prepares the next one."""


@torch.inference_mode()
def decode_windows(
    modules: DecoderModules,
    table: TokenTable,
    audio: Tensor,
    prompts: Sequence[Sequence[int]],
    timestamps: Sequence[bool],
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[WindowTokens]:
    """What the model writes for each window.

    Args:
        modules: the text decoder.
        table: its vocabulary.
        audio: encoder states `(windows, 1500, d_model)`.
        prompts: per window, all tokens before the first of its own; they may differ in length.
        timestamps: per window, whether the rules of time stamps hold.
        temperature: 0 takes the likeliest token, above it tokens are drawn.
        seed: the same seed, windows and device draw the same tokens.
    """
    device = audio.device
    samples = BEST_OF if temperature > 0 else 1
    # Half of the decoder's positions, and never past the last: as openai's sample_len and its end of loop.
    limits = [min(modules.max_positions // 2, modules.max_positions - len(p) + 1) for p in prompts]
    state = DecoderState(modules, audio)
    hidden = state.prefill(prompts, pad=table.eot, room=max(limits))
    no_speech = _no_speech_probabilities(modules, table, hidden, prompts)
    logits = modules.logits(hidden[:, -1])
    if samples > 1:
        state.repeat(samples)
        logits = logits.repeat_interleave(samples, dim=0)

    n_rows = len(prompts) * samples
    rules = TokenRules(table, [on for on in timestamps for _ in range(samples)], device)
    row_limits = torch.tensor(limits, device=device).repeat_interleave(samples)
    written = torch.full((n_rows, max(limits)), table.eot, device=device)
    sums = torch.zeros(n_rows, device=device)
    # The same for every window: which others share its batch cannot change what is drawn for it.
    draws = _draws(samples, max(limits), seed).repeat(len(prompts), 1).to(device) if temperature > 0 else None
    rows = torch.arange(n_rows, device=device)  # of the above, those still at work
    done = torch.zeros(n_rows, dtype=torch.bool, device=device)
    steps_between_looks = 1 if device.type == "cpu" else _GPU_STEPS_BETWEEN_LOOKS

    for step in range(max(limits)):
        rules.apply(logits)
        tokens, logprobs = _choose(logits, temperature, None if draws is None else draws[rows, step])
        tokens = tokens.masked_fill(done, table.eot)
        written[rows, step] = tokens
        sums[rows] += logprobs.masked_fill(done, 0.0)
        done = done | (tokens == table.eot) | (row_limits[rows] <= step + 1)
        if step + 1 == max(limits):
            break
        rules.update(tokens)
        if (step + 1) % steps_between_looks == 0:
            open_windows = (~done).view(-1, samples).any(dim=1)
            still_open = int(open_windows.sum())  # the one look
            if still_open == 0:
                break
            if still_open <= len(open_windows) * 3 // 4:  # to close the ranks means to copy them: not for each one
                kept = open_windows.repeat_interleave(samples).nonzero()[:, 0]
                state.keep(open_windows.nonzero()[:, 0], kept)
                rules.keep(kept)
                rows, done, tokens = rows[kept], done[kept], tokens[kept]
        logits = modules.logits(state.step(tokens))

    texts = [row[: row.index(table.eot)] if table.eot in row else row for row in written.tolist()]
    scores = sums.tolist()
    best = [
        max(range(first, first + samples), key=lambda row: scores[row] / max(1, len(texts[row])))
        for first in range(0, n_rows, samples)
    ]
    return [
        WindowTokens(
            tokens=tuple(texts[row]), avg_logprob=scores[row] / (len(texts[row]) + 1), no_speech_prob=probability
        )
        for row, probability in zip(best, no_speech, strict=True)
    ]


@torch.inference_mode()
def language_probabilities(modules: DecoderModules, table: TokenTable, audio: Tensor) -> list[Mapping[str, float]]:
    """Per window, each language's share of what all languages have right after <|startoftranscript|>.

    As openai/whisper `decoding.py:detect_language`. `audio`: encoder states `(windows, 1500, d_model)`.
    """
    if not table.multilingual:
        return [{"en": 1.0} for _ in audio]
    hidden = DecoderState(modules, audio).prefill([(table.sot,)] * len(audio), pad=table.eot)
    ids = torch.tensor(list(table.language_ids.values()), device=audio.device)
    shares = modules.logits(hidden[:, 0])[:, ids].softmax(dim=1).tolist()
    return [dict(zip(table.language_ids, row, strict=True)) for row in shares]


def _choose(logits: Tensor, temperature: float, draws: Tensor | None) -> tuple[Tensor, Tensor]:
    """The next token of each row, and its log probability at temperature 0 whatever the temperature; both `(rows,)`."""
    best, tokens = logits.max(dim=1)
    normaliser = logits.logsumexp(dim=1)
    if draws is None:
        return tokens, best - normaliser
    shares = (logits / temperature).softmax(dim=1).cumsum(dim=1)
    wanted = draws[:, None] * shares[:, -1:]
    drawn = torch.searchsorted(shares, wanted).clamp(max=logits.shape[1] - 1)
    chosen = logits.gather(1, drawn)[:, 0]
    # Rounding in the running sum can, once in many millions, point at a token that the rules forbid.
    forbidden = chosen == float("-inf")
    drawn = torch.where(forbidden, tokens, drawn[:, 0])
    return drawn, torch.where(forbidden, best, chosen) - normaliser


def _draws(n_rows: int, steps: int, seed: int) -> Tensor:
    """float32 `(n_rows, steps)` in (0, 1], drawn on the host so that every device gets the same.

    Step by step: more steps leave the draws of the earlier ones as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    return (1.0 - torch.rand((steps, n_rows), generator=generator)).T.contiguous()


def _no_speech_probabilities(
    modules: DecoderModules, table: TokenTable, hidden: Tensor, prompts: Sequence[Sequence[int]]
) -> list[float]:
    longest = hidden.shape[1]
    # index() from the right: previous text could hold the id only by mistake, but then it comes first.
    places = [longest - 1 - tuple(reversed(prompt)).index(table.sot) for prompt in prompts]
    windows = torch.arange(len(prompts), device=hidden.device)
    at_start = hidden[windows, torch.tensor(places, device=hidden.device)]
    return [float(p) for p in modules.logits(at_start).softmax(dim=1)[:, table.no_speech].tolist()]
