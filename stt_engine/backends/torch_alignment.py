"""When each token was said: the attention of some heads to the audio, and the cheapest path through it.

As openai/whisper `timing.py:find_alignment`: the scores of the alignment heads are turned into weights over the
positions that hold audio, put on one scale, smoothed by a median, averaged, and walked by dynamic time warping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stt_engine.backends.torch_decoder import DecoderModules, DecoderState
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
    words: list[tuple[Word, ...]] = []
    for window, (prompt, text, request) in enumerate(zip(prompts, texts, requests, strict=True)):
        if not text:
            words.append(())
            continue
        # From the last token of the prompt on, each position is about to write the next token.
        first, end = len(prompt) - 1, len(prompt) + len(text)
        logits = modules.logits(hidden[window, first : end - 1])[:, : table.eot]
        text_ids = torch.tensor(text, device=audio.device)
        probabilities = logits.softmax(dim=1).gather(1, text_ids[:, None])[:, 0]
        n_positions = min(audio.shape[1], max(1, n_samples[window] // SAMPLES_PER_POSITION))
        weights = torch.stack([scores[head][window, : end + 1, :n_positions] for head in modules.alignment_heads])
        cost = -_attention(weights)[first:end]
        words.append(
            words_from_alignment(
                table,
                request.language,
                text,
                warp(cost.cpu().numpy()),
                probabilities.tolist(),
                seconds_from_samples(n_samples[window]),
            )
        )
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


def warp(cost: npt.NDArray[np.float32]) -> list[tuple[int, int]]:
    """The cheapest path from the first to the last corner of `(n, m)`, one step right, down or both at a time.

    Dynamic time warping as openai/whisper `timing.py:dtw_cpu`, ties included (right before down before both), but
    an antidiagonal at a time, whose cells do not depend on each other.
    """
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf, dtype=np.float32)
    came_from = np.full((n + 1, m + 1), -1, dtype=np.int8)
    total[0, 0] = 0.0
    for diagonal in range(2, n + m + 1):
        i = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        j = diagonal - i
        both, down, right = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        origin = np.where((both < down) & (both < right), 0, np.where((down < both) & (down < right), 1, 2))
        total[i, j] = cost[i - 1, j - 1] + np.choose(origin, (both, down, right))
        came_from[i, j] = origin
    came_from[0, :] = 2
    came_from[:, 0] = 1
    path: list[tuple[int, int]] = []
    i_at, j_at = n, m
    while i_at > 0 or j_at > 0:
        path.append((i_at - 1, j_at - 1))
        came = came_from[i_at, j_at]
        i_at -= int(came != 2)
        j_at -= int(came != 1)
    return path[::-1]
