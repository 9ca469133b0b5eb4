"""When each token was said: the attention of some heads to the audio, and the cheapest path through it.

As openai/whisper `timing.py:find_alignment`: the scores of the alignment heads are turned into weights over the
positions that hold audio, put on one scale, smoothed by a median, averaged, and walked by dynamic time
warping (`torch_warp.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stt_engine.backends.torch_decoder import DecoderModules, DecoderState
from stt_engine.backends.torch_warp import warp
from stt_engine.tokens import TokenTable
from stt_engine.types import Word, seconds_from_samples
from stt_engine.windows import WindowRequest
from stt_engine.words import words_from_alignment

SAMPLES_PER_POSITION = 320
"""20 ms: the encoder has 1,500 positions in 30 s."""
MEDIAN_WIDTH = 7


@torch.inference_mode()
def align_windows(
    modules: DecoderModules,
    table: TokenTable,
    audio: Tensor,
    n_samples: Sequence[int],
    requests: Sequence[WindowRequest],
    tokens: Sequence[Sequence[int]],
) -> list[tuple[Word, ...]]:
    """Words of each window's text tokens, times relative to the window; none where there are no tokens.

    `audio`: encoder states `(windows, 1500, d_model)`; `n_samples`: audio in each window before padding.
    """
    prompts = [table.prompt(replace(request, timestamps=False, previous_tokens=())) for request in requests]
    room = modules.max_positions
    texts = [
        tuple(t for t in ids if t < table.eot)[: room - len(p) - 1] for p, ids in zip(prompts, tokens, strict=True)
    ]
    whole = [[*prompt, *text, table.eot] for prompt, text in zip(prompts, texts, strict=True)]
    longest = max(len(ids) for ids in whole)
    padded = torch.tensor([ids + [table.eot] * (longest - len(ids)) for ids in whole], device=audio.device)
    hidden, scores = DecoderState(modules, audio).attend(padded, modules.alignment_heads)
    speaking = [window for window, text in enumerate(texts) if text]
    costs: list[Tensor] = []
    likely: list[Tensor] = []
    for window in speaking:
        # From the last token of the prompt on, each position is about to write the next token.
        first, end = len(prompts[window]) - 1, len(prompts[window]) + len(texts[window])
        logits = modules.logits(hidden[window, first : end - 1])[:, : table.eot]
        ids = padded[window, first + 1 : end]
        likely.append(logits.softmax(dim=1).gather(1, ids[:, None])[:, 0])
        n_positions = min(audio.shape[1], max(1, n_samples[window] // SAMPLES_PER_POSITION))
        weights = torch.stack([scores[head][window, : end + 1, :n_positions] for head in modules.alignment_heads])
        costs.append(-_attention(weights)[first:end])
    words: list[tuple[Word, ...]] = [()] * len(texts)
    # Only now is the device waited for.
    probabilities = torch.cat(likely).tolist() if likely else []
    for window, path in zip(speaking, warp(costs), strict=True):
        own, probabilities = probabilities[: len(texts[window])], probabilities[len(texts[window]) :]
        window_s = seconds_from_samples(n_samples[window])
        words[window] = words_from_alignment(table, requests[window].language, texts[window], path, own, window_s)
    return words


def _attention(scores: Tensor) -> Tensor:
    """Scores `(heads, tokens, positions)` to how much each token looks at each position, `(tokens, positions)`."""
    weights = scores.softmax(dim=-1)
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    weights = (weights - mean) / deviation.clamp(min=torch.finfo(weights.dtype).tiny)
    return _median(weights).mean(dim=0)


def _median(x: Tensor) -> Tensor:
    """The median of MEDIAN_WIDTH neighbours along the last dimension, mirrored at the ends; a short row stays."""
    half = MEDIAN_WIDTH // 2
    if x.shape[-1] <= half:
        return x
    mirrored = torch.nn.functional.pad(x, (half, half), mode="reflect")
    return mirrored.unfold(-1, MEDIAN_WIDTH, 1).sort(dim=-1).values[..., half]
