"""Writing the tokens of a device batch, token by token, all windows at once.

Greedy at temperature 0; above it, five texts are drawn per window and the one with the best mean log probability is
kept (openai/whisper `DecodingTask` with best_of=5, `MaximumLikelihoodRanker`). The host asks the device once every few
steps which windows are done; those leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from stt_engine.backends.torch_decoder import DecoderModules, DecoderState
from stt_engine.backends.torch_graphs import StepGraphs
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
    graphs: StepGraphs | None = None,
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
        graphs: where steps are recorded to be replayed, on a GPU; without them each is launched anew.
    """
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
    rules = TokenRules(table, [on for on in timestamps for _ in range(samples)], audio.device)
    # The same for every window: which others share its batch cannot change what is drawn for it.
    draws = _draws(samples, max(limits), seed).repeat(len(prompts), 1).to(audio.device) if temperature > 0 else None
    writing = _Writing(modules, table.eot, state, rules, limits, samples, temperature, draws)
    writing.run(logits, graphs)
    written, sums = writing.written, writing.sums
    n_rows = len(prompts) * samples

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


class _Writing:
    """A device batch at work: every row's tokens so far, and which rows still write.

    `_advance` reads and writes the same tensors at every step and asks the device nothing, so that it can be replayed
    as a CUDA graph; rows that leave the batch make new ones.
    """

    def __init__(
        self,
        modules: DecoderModules,
        eot: int,
        state: DecoderState,
        rules: TokenRules,
        limits: Sequence[int],
        samples: int,
        temperature: float,
        draws: Tensor | None,
    ) -> None:
        device = modules.positions.device
        self.written = torch.full((len(limits) * samples, max(limits)), eot, device=device)
        self.sums = torch.zeros(len(self.written), device=device)
        self._modules, self._eot, self._state, self._rules = modules, eot, state, rules
        self._samples, self._temperature, self._draws = samples, temperature, draws
        self._most_steps = max(limits)
        self._rows = torch.arange(len(self.written), device=device)  # of the above, those still at work
        self._done = torch.zeros(len(self.written), dtype=torch.bool, device=device)
        self._limits = torch.tensor(limits, device=device).repeat_interleave(samples)
        self._tokens = torch.full((len(self.written),), eot, device=device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)

    def run(self, logits: Tensor, graphs: StepGraphs | None) -> None:
        """From the logits of the first token of each row to the end of all."""
        self._write(logits)
        if graphs is not None:
            self._state.hold_still()
        steps_between_looks = 1 if self.written.device.type == "cpu" else _GPU_STEPS_BETWEEN_LOOKS
        replay: Callable[[], object] | None = None
        for step in range(1, self._most_steps):
            if step % steps_between_looks == 0:
                n_open, n_windows = self._look()
                if n_open == 0:
                    return
                # To close the ranks means to copy them, and to record the step again: not for each one that leaves.
                if n_open <= n_windows * (3 if graphs is None else 2) // 4:
                    self._close_ranks()
                    replay = None
            if graphs is None or step == 1:  # the first is launched, so that what is set up once is not recorded
                self._advance()
            else:
                if replay is None:
                    replay = graphs.recorded(self._advance)
                replay()

    def _advance(self) -> None:
        self._write(self._modules.logits(self._state.step(self._tokens)))

    def _write(self, logits: Tensor) -> None:
        self._rules.apply(logits)
        draws = None if self._draws is None else self._draws[self._rows, self._step]
        tokens, logprobs = _choose(logits, self._temperature, draws)
        tokens = tokens.masked_fill(self._done, self._eot)
        self.written.index_put_((self._rows, self._step), tokens)
        self.sums.index_add_(0, self._rows, logprobs.masked_fill(self._done, 0.0))
        self._step += 1
        self._done |= (tokens == self._eot) | (self._limits <= self._step)
        self._rules.update(tokens)
        self._tokens.copy_(tokens)

    def _look(self) -> tuple[int, int]:
        """How many windows still write, of those here; waits for the device."""
        open_windows = self._open_windows()
        return int(open_windows.sum()), len(open_windows)

    def _open_windows(self) -> Tensor:
        return (~self._done).view(-1, self._samples).any(dim=1)

    def _close_ranks(self) -> None:
        open_windows = self._open_windows()
        kept = open_windows.repeat_interleave(self._samples).nonzero()[:, 0]
        self._state.keep(open_windows.nonzero()[:, 0], kept)
        self._rules.keep(kept)
        self._rows, self._done = self._rows[kept], self._done[kept]
        self._limits, self._tokens = self._limits[kept], self._tokens[kept]


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
